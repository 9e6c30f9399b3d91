"""Part files of uploads that were broken off, where a service writes in place."""

import os
from pathlib import Path

import pytest

from tierce.blobs import cloud_listing
from tierce.blobs.cloud_names import Layout, path_of
from tierce.blobs.cloud_parts import is_part, sweep
from tierce.cloud.bucket import Entry, open_bucket
from tierce.core.digest import Digest
from tierce.core.limits import CLOUD_PART_SECONDS
from tierce.testing.cloud_nodes import cloud_disk

DIGEST = Digest.of(b"content", "sha1")
PART = ".tierce-part-0123456789abcdef"
NOW_SECONDS = 1_700_000_000


@pytest.mark.parametrize("layout", ["tierce", "cask"])
async def test_old_part_files_go_and_nothing_else(tmp_path: Path, layout: Layout) -> None:
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    disk = cloud_disk(tmp_path / "data", open_bucket(f"file://{bucket}"), layout=layout)
    await disk.prepare("one")
    disk.store.marking.now = lambda: NOW_SECONDS * 1000
    other = path_of(Digest.of(b"other"), layout)
    old = NOW_SECONDS - CLOUD_PART_SECONDS - 1
    ages = {
        path_of(DIGEST, layout) + PART: old,
        other + PART: old,
        path_of(DIGEST, layout) + PART[:-1] + "0": NOW_SECONDS - CLOUD_PART_SECONDS + 60,
        other + PART + ".txt": old,
        other + ".tierce-part-mine": old,
        other.replace("blake3", "mine") + PART: old,
        "notes" + PART: old,
    }
    for name, age in ages.items():
        path = bucket / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a part")
        os.utime(path, (age, age))
    done = await cloud_listing.compare(disk.store, disk.environment, is_old=lambda row: True)
    left = {name for name in ages if (bucket / name).exists()}
    assert left == set(list(ages)[2:])
    assert (done.swept, done.strange, done.adopted) == (2, 3, 0)
    await disk.close()


def test_a_part_file_is_known_by_its_whole_name() -> None:
    path = path_of(DIGEST, "tierce")
    assert is_part(path + PART, "tierce")
    assert not is_part(path, "tierce")
    assert not is_part(path + PART.upper(), "tierce")
    assert not is_part(path + PART, "cask")  # it is called otherwise there


async def test_a_part_file_of_unknown_age_stays() -> None:
    bucket = open_bucket("memory:///")
    entry = Entry(path_of(DIGEST, "tierce") + PART, 1, "", "", 0.0)
    assert not await sweep(bucket, entry, NOW_SECONDS * 1000)
    assert bucket.requests["delete"] == 0
