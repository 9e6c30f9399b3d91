"""The doctor finds what is wrong in a data directory, and repairs what can be."""

import os
from pathlib import Path

import pytest

from tierce.blobs.environment import BLOBS
from tierce.blobs.local import Disk
from tierce.blobs.space import SpaceGuard
from tierce.blobs.store import Counts
from tierce.core.digest import Digest
from tierce.core.errors import Conflict, Corrupt, NotFound
from tierce.node.directory import DataDirectory
from tierce.node.doctor import examine
from tierce.testing.blob_contract import write_now

SMALL, LARGE = b"small" * 100, bytes(range(256)) * 2000


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """A directory with two packed blobs and one in a file."""
    directory = DataDirectory.open(tmp_path / "data")
    disk = open_disk(directory.path)
    for content in (SMALL, b"another", LARGE):
        async with disk.spooler.holding(content, "sha256") as spool:
            await disk.store.put(spool)
    await disk.close()
    directory.close()
    return directory.path


def open_disk(data: Path) -> Disk:
    return Disk(data, space=SpaceGuard(data, reserve_bytes=0))


def file_of(data: Path) -> Path:
    (found,) = [path for path in (data / "files").rglob("*") if path.is_file()]
    return found


async def test_a_sound_directory_is_healthy(data: Path) -> None:
    report = await examine(data, repair=False)
    assert report.is_healthy
    assert (report.blobs, report.bytes) == (3, len(SMALL) + len(b"another") + len(LARGE))
    assert not report.counts_off
    assert not report.stray


async def test_a_bad_file_is_reported_and_left(data: Path) -> None:
    content = bytearray(file_of(data).read_bytes())
    content[1000] ^= 1
    file_of(data).write_bytes(content)
    report = await examine(data, repair=False)
    assert [digest for digest, _ in report.bad] == [Digest.of(LARGE, "sha256")]
    assert not report.is_healthy
    assert file_of(data).read_bytes() == bytes(content)


async def test_a_repair_moves_bad_copies_and_counts_afresh(data: Path) -> None:
    content = bytearray(file_of(data).read_bytes())
    content[1000] ^= 1
    file_of(data).write_bytes(content)
    await examine(data, repair=True)
    report = await examine(data, repair=False)
    assert report.is_healthy
    assert (report.blobs, report.quarantined) == (2, 1)
    assert not report.counts_off


async def test_a_bad_packed_value_is_found(data: Path) -> None:
    disk = open_disk(data)
    digest = Digest.of(SMALL, "sha256")
    key = b"sha256:" + digest.raw
    write_now(disk.environment, lambda batch: batch.put(BLOBS, key, b"\x01" + b"wrong"))
    await disk.close()
    report = await examine(data, repair=False)
    assert [found for found, _ in report.bad] == [digest]


async def test_counts_that_are_off_are_told_and_put_right(data: Path) -> None:
    disk = open_disk(data)
    write_now(disk.environment, lambda batch: batch.set_counts("files", Counts(5, 5)))
    await disk.close()
    report = await examine(data, repair=False)
    assert report.is_healthy
    assert report.counts_off == {"files": (Counts(5, 5), Counts(1, len(LARGE)))}
    await examine(data, repair=True)
    assert not (await examine(data, repair=False)).counts_off


async def test_unfinished_uploads_are_told_and_swept(data: Path) -> None:
    (data / "tmp" / "1-1.spool").write_bytes(b"half")
    assert (await examine(data, repair=False)).unfinished == 1
    await examine(data, repair=True)
    assert os.listdir(data / "tmp") == []


async def test_a_stray_file_is_told_and_left(data: Path) -> None:
    stray = data / "files" / "note.txt"
    stray.write_text("hello")
    assert (await examine(data, repair=True)).stray == [stray]
    assert stray.exists()


async def test_a_damaged_index_is_told_before_it_is_opened(data: Path) -> None:
    index = data / "lmdb" / "data.mdb"
    content = bytearray(index.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 + 10] ^= 0xFF
    index.write_bytes(content)
    report = await examine(data, repair=False)
    assert report.index_problems
    assert not report.is_healthy


async def test_a_repair_wants_the_directory_to_itself(data: Path) -> None:
    directory = DataDirectory.open(data)
    with pytest.raises(Conflict):
        await examine(data, repair=True)
    assert (await examine(data, repair=False)).node_runs
    directory.close()


async def test_what_is_no_data_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"node\.toml"):
        await examine(tmp_path, repair=False)


async def test_a_format_of_the_future_is_refused(data: Path) -> None:
    toml = data / "node.toml"
    toml.write_text(toml.read_text().replace("format_version = 2", "format_version = 3"))
    with pytest.raises(Corrupt, match="format version 3"):
        await examine(data, repair=False)
