"""What a files store does about a damaged checksum table, and about names that are no blobs."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tierce.blobs.local import Disk, make_directories
from tierce.blobs.space import SpaceGuard
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt
from tierce.core.limits import CHUNK_BYTES, PIECE_BYTES
from tierce.testing.blob_contract import Workbench, body

SIZE = 2 * PIECE_BYTES + 5


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    make_directories(tmp_path)
    disk = Disk(tmp_path, space=SpaceGuard(tmp_path, reserve_bytes=0))

    def harm(digest: Digest, at: int) -> None:
        path = path_of(tmp_path, digest)
        content = bytearray(path.read_bytes())
        content[at] ^= 0xFF
        path.write_bytes(content)

    yield Workbench(disk.store.files, disk.spooler, harm, lambda: 0)
    await disk.close()


def path_of(data: Path, digest: Digest) -> Path:
    return data / "files" / digest.algorithm / digest.hex[:2] / digest.hex[2:4] / digest.hex


@pytest.mark.parametrize("at", [SIZE, SIZE + 8, -1, -16])
async def test_a_good_content_is_served_whatever_its_table_says(bench: Workbench, at: int) -> None:
    digest, _ = await bench.put(body(SIZE))
    bench.harm(digest, at)
    assert await bench.get(digest) == body(SIZE)
    for start in (0, CHUNK_BYTES - 1, SIZE - 1):
        assert await bench.get(digest, start, start + 2) == body(SIZE)[start : start + 2]


@pytest.mark.parametrize("at", [SIZE, -1])
async def test_a_damaged_table_is_reported_and_made_anew(
    bench: Workbench, tmp_path: Path, at: int
) -> None:
    digest, _ = await bench.put(body(SIZE))
    whole = path_of(tmp_path, digest).read_bytes()
    bench.harm(digest, at)
    with pytest.raises(Corrupt, match="content is good"):
        await bench.store.verify(digest, repair=False)
    assert await bench.store.verify(digest, repair=True) == SIZE
    assert path_of(tmp_path, digest).read_bytes() == whole


async def test_the_content_is_a_plain_prefix_of_its_file(bench: Workbench, tmp_path: Path) -> None:
    digest, _ = await bench.put(body(SIZE))
    assert path_of(tmp_path, digest).read_bytes()[:SIZE] == body(SIZE)


async def test_names_that_are_no_blobs_are_not_listed(bench: Workbench, tmp_path: Path) -> None:
    digest, _ = await bench.put(body(10))
    place = path_of(tmp_path, digest).parent
    (place / "README").write_text("no blob")
    (place / ("f" * 64)).write_text("no blob here: its first digits are those of another place")
    (tmp_path / "files" / "blake3" / "zz").mkdir()
    assert [info.digest for info in await bench.store.list_after(None, 10)] == [digest]


async def test_the_good_copy_of_a_concurrent_put_is_not_set_aside(
    bench: Workbench, tmp_path: Path
) -> None:
    data = body(SIZE, seed=9)
    digest, _ = await bench.put(data)
    bench.harm(digest, SIZE // 2)
    bad = await bench.store.open(digest)
    await bench.put(data)
    with pytest.raises(Corrupt):
        async for _ in bad.stream():
            pass
    await bad.aclose()
    assert await bench.get(digest) == data


async def test_a_file_system_without_hard_links_will_do(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", link)
    digest, first = await bench.put(body(SIZE))
    _, second = await bench.put(body(SIZE))
    assert (first, second) == (True, False)
    assert await bench.get(digest) == body(SIZE)


async def test_a_spool_given_up_while_it_ends_waits_for_its_thread(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that still wrote would write to whatever file has the descriptor's number by then."""
    spool = bench.spooler.new("blake3", memory_limit_bytes=-1)
    await spool.write(body(SIZE))
    begun, go_on = threading.Event(), threading.Event()
    descriptors: list[tuple[int, int]] = []

    def slow_tail() -> None:
        begun.set()
        go_on.wait(10)
        descriptors.append((spool._fd, os.fstat(spool._fd).st_size))

    monkeypatch.setattr(spool, "_write_tail", slow_tail)
    ending = asyncio.ensure_future(spool.finish())
    await asyncio.to_thread(begun.wait, 10)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    given_up = asyncio.ensure_future(spool.discard())
    await asyncio.sleep(0)
    assert not given_up.done()
    go_on.set()
    await given_up
    assert descriptors == [(descriptors[0][0], SIZE)]
