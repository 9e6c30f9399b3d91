"""Bytes that changed on disk are never served as a complete answer, are set aside, and can be healed.

The node is stopped while its files are damaged. The scrub may find the damage before a reader does,
except where a test keeps it busy with another blob: what a client sees must be the same.
"""

import functools
import mmap
import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tierce.core.digest import Digest
from tierce.core.limits import CHUNK_BYTES, KIB, MIB
from tierce.testing.calls import call, get, listing, metric, put, status
from tierce.testing.processes import NodeProcess, wait_for

pytestmark = pytest.mark.procs

SIZE = 3 * MIB + 12345
TABLE_BYTES = 8 * -(-SIZE // CHUNK_BYTES)
FOOTER_BYTES = 16


def _file_of(node: NodeProcess, digest: Digest) -> Path:
    name = digest.hex
    return node.data / "files" / digest.algorithm / name[:2] / name[2:4] / name


def _flip(path: Path, offset: int) -> None:
    """Invert one byte; a negative offset counts from the end."""
    with path.open("r+b") as file:
        file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0xFF]))


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def _quarantined(node: NodeProcess, digest: Digest) -> list[Path]:
    return list((node.data / "quarantine").glob(f"{digest.algorithm}-{digest.hex}.*"))


def _put_and_damage(
    node: NodeProcess, damages: Iterable[Callable[[Path], object]], size: int = SIZE
) -> list[tuple[Digest, bytes]]:
    """Put large blobs, stop the node, damage the file of each in its own way, start again.

    A blob of an algorithm that sorts first keeps the scrub away from these for an hour.
    """
    node.settings["scrub_interval_seconds"] = 3600
    node.start()
    put(node.address, b"checked first", "blake3")
    damages = list(damages)
    contents = [random.Random(number).randbytes(size) for number in range(len(damages))]
    blobs = [(put(node.address, data, "sha256"), data) for data in contents]
    node.stop()
    for (digest, _), damage in zip(blobs, damages, strict=True):
        damage(_file_of(node, digest))
    node.start()
    return blobs


DAMAGE: dict[str, Callable[[Path], object]] = {
    "first-byte": lambda path: _flip(path, 0),
    "a-byte-in-the-middle": lambda path: _flip(path, SIZE // 2),
    "last-byte-of-the-content": lambda path: _flip(path, SIZE - 1),
    "cut-in-the-content": lambda path: os.truncate(path, SIZE // 2),
    "cut-by-a-byte": lambda path: os.truncate(path, path.stat().st_size - 1),
    "cut-to-nothing": lambda path: os.truncate(path, 0),
    "a-byte-appended": lambda path: _append(path, b"x"),
    "much-appended": lambda path: _append(path, bytes(SIZE)),
}


def test_a_large_blob_with_bad_content_is_never_served_and_can_be_healed(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data") as node:
        blobs = _put_and_damage(node, DAMAGE.values())
        for kind, (digest, data) in zip(DAMAGE, blobs, strict=True):
            reply = get(node.address, digest)
            assert reply.status == 404 or (reply.status == 200 and not reply.complete), kind
            assert reply.status == 404 or data.startswith(reply.body), kind
            wait_for(lambda d=digest: _quarantined(node, d), "the bad copy in quarantine")  # type: ignore[misc]
            assert not _file_of(node, digest).exists(), kind
            assert get(node.address, digest).status == 404, kind
            assert call(node.address, "HEAD", f"/v1/blobs/{digest}").status == 404, kind
        assert metric(node.address, "tierce_verify_failures_total", kind="file") == len(DAMAGE)
        assert len(listing(node.address)) == 1
        wait_for(lambda: status(node.address)["blobs"] == 1, "the counts to be right")

        for kind, (digest, data) in zip(DAMAGE, blobs, strict=True):
            assert put(node.address, data, "sha256") == digest, kind
            assert get(node.address, digest).body == data, kind
            assert len(_quarantined(node, digest)) == 1, kind
        wait_for(lambda: status(node.address)["blobs"] == 1 + len(DAMAGE), "the counts")
        node.stop()


def test_good_bytes_put_over_a_bad_copy_replace_it(tmp_path: Path) -> None:
    """Nobody has read the blob yet, so nobody knows that it is bad."""
    with NodeProcess(tmp_path / "data") as node:
        blobs = _put_and_damage(node, DAMAGE.values())
        for kind, (digest, data) in zip(DAMAGE, blobs, strict=True):
            put(node.address, data, "sha256")
            reply = get(node.address, digest)
            assert reply.complete, kind
            assert reply.body == data, kind
        assert status(node.address)["blobs"] == 1 + len(DAMAGE)
        node.stop()


def test_damage_beside_the_content_does_not_stop_it_from_being_served(tmp_path: Path) -> None:
    places = {
        "first checksum": SIZE,
        "last checksum": SIZE + TABLE_BYTES - 1,
        "magic": -FOOTER_BYTES,
        "version": -FOOTER_BYTES + 7,
        "size": -1,
    }
    with NodeProcess(tmp_path / "data") as node:
        damages = [functools.partial(_flip, offset=offset) for offset in places.values()]
        blobs = _put_and_damage(node, damages)
        for place, (digest, data) in zip(places, blobs, strict=True):
            for byte_range in ("0-9", f"{SIZE - 10}-{SIZE - 1}", "1000000-2000000"):
                first, last = map(int, byte_range.split("-"))
                assert get(node.address, digest, byte_range).body == data[first : last + 1], place
            whole = get(node.address, digest)
            assert whole.complete, place
            assert whole.body == data, place
            assert _quarantined(node, digest) == [], place
        node.stop()


def test_the_scrub_sets_a_bad_copy_aside_that_nobody_reads(tmp_path: Path) -> None:
    data = random.Random(7).randbytes(SIZE)
    with NodeProcess(tmp_path / "data", workers=2, scrub_interval_seconds=1) as node:
        node.start()
        digest = put(node.address, data)
        node.stop()
        _flip(_file_of(node, digest), SIZE // 3)
        node.start()
        wait_for(lambda: _quarantined(node, digest), "the scrub to find it")
        assert get(node.address, digest).status == 404
        wait_for(
            lambda: status(node.address)["agent"]["scrub"]["bad_blobs"] == 1,
            "the scrub to count it",
        )
        assert metric(node.address, "tierce_verify_failures_total") == 1
        node.stop()


def test_the_scrub_makes_a_damaged_checksum_table_anew(tmp_path: Path) -> None:
    data = random.Random(8).randbytes(SIZE)
    with NodeProcess(tmp_path / "data", scrub_interval_seconds=1) as node:
        node.start()
        digest = put(node.address, data)
        before = _file_of(node, digest).read_bytes()
        node.stop()
        _flip(_file_of(node, digest), SIZE)
        node.start()
        wait_for(lambda: _file_of(node, digest).read_bytes() == before, "the table to be repaired")
        assert get(node.address, digest).body == data
        node.stop()


def _flip_in_index(node: NodeProcess, data: bytes) -> None:
    """Change one byte of every copy of a packed blob in LMDB's file."""
    path = node.data / "lmdb" / "data.mdb"
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        place, found = view.find(data[:64]), 0
        while place >= 0:
            view[place + 40] ^= 1
            place, found = view.find(data[:64], place + 64), found + 1
        view.flush()
    assert found, "the blob is in the index"


def test_a_packed_blob_with_a_bad_byte_is_never_served_and_can_be_healed(tmp_path: Path) -> None:
    contents = [random.Random(size).randbytes(size) for size in (100, 4 * KIB, 64 * KIB)]
    with NodeProcess(tmp_path / "data", workers=2, scrub_interval_seconds=3600) as node:
        node.start()
        put(node.address, b"checked first", "blake3")
        digests = [put(node.address, data, "sha256") for data in contents]
        node.stop()
        for data in contents:
            _flip_in_index(node, data)
        node.start()
        for number, (digest, data) in enumerate(zip(digests, contents, strict=True)):
            byte_range = "0-9" if number == 1 else ""
            assert get(node.address, digest, byte_range).status == 404
            assert len(_quarantined(node, digest)) == 1
            bad = _quarantined(node, digest)[0].read_bytes()
            assert len(bad) == len(data)
            assert bad != data
        assert metric(node.address, "tierce_verify_failures_total", kind="packed") == len(digests)
        assert len(listing(node.address)) == status(node.address)["blobs"] == 1
        for digest, data in zip(digests, contents, strict=True):
            assert put(node.address, data, "sha256") == digest
            assert get(node.address, digest).body == data
        assert len(listing(node.address)) == status(node.address)["blobs"] == 1 + len(digests)
        node.stop()


def test_a_bad_byte_in_the_last_mebibyte_never_completes_an_answer(tmp_path: Path) -> None:
    size = 20 * MIB
    with NodeProcess(tmp_path / "data", workers=2) as node:
        damage = functools.partial(_flip, offset=size - 1000)
        ((digest, data),) = _put_and_damage(node, [damage], size)
        before = size - CHUNK_BYTES
        for first, last in ((0, 99), (10 * MIB - 1, 12 * MIB), (before - 100, before - 1)):
            part = get(node.address, digest, f"{first}-{last}")
            assert part.status == 206
            assert part.body == data[first : last + 1]
        assert _quarantined(node, digest) == []

        whole = get(node.address, digest)
        assert whole.status == 200
        assert not whole.complete
        assert len(whole.body) <= size - MIB
        assert data.startswith(whole.body)
        assert len(_quarantined(node, digest)) == 1
        assert get(node.address, digest).status == 404
        node.stop()


def test_a_range_over_a_bad_byte_never_completes(tmp_path: Path) -> None:
    size = 8 * MIB
    ranges = (
        f"{size - 1000}-",
        f"{size - 1001}-{size - 1000}",
        f"{size - 4 * MIB}-{size - 1}",
        "-1",
    )
    with NodeProcess(tmp_path / "data") as node:
        damage = functools.partial(_flip, offset=size - 1000)
        for byte_range, (digest, data) in zip(
            ranges, _put_and_damage(node, [damage] * len(ranges), size), strict=True
        ):
            part = get(node.address, digest, byte_range)
            assert part.status == 404 or not part.complete, byte_range
            assert part.status == 404 or part.body in data, byte_range
            assert len(_quarantined(node, digest)) == 1, byte_range
        node.stop()
