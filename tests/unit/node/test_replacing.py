"""A blob whose local copy proves bad while it is read."""

from collections.abc import AsyncGenerator

import pytest

from tierce.blobs.store import OpenBlob
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, NotFound, TierceError, Unavailable
from tierce.node.replacing import ReplacedBlob

DATA = b"0123456789" * 10
DIGEST = Digest.of(DATA)


class Copy:
    """An open copy that comes in pieces of 7 bytes, and is found bad at an offset."""

    def __init__(self, bad_at: int = 1 << 30) -> None:
        self.digest = DIGEST
        self.size = len(DATA)
        self.data: bytes | None = None
        self.bad_at = bad_at
        self.streams: list[tuple[int, int | None]] = []
        self.closed = 0

    async def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        self.streams.append((start, stop))
        end = len(DATA) if stop is None else min(stop, len(DATA))
        try:
            for place in range(start, end, 7):
                if place <= self.bad_at < place + 7:
                    raise Corrupt("the copy is bad")
                yield DATA[place : min(place + 7, end)]
        finally:
            self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


def blob_of(local: Copy, remote: Copy | TierceError) -> ReplacedBlob:
    async def open_elsewhere(digest: Digest) -> OpenBlob:
        assert digest == DIGEST
        if isinstance(remote, TierceError):
            raise remote
        return remote

    return ReplacedBlob(local, open_elsewhere)


async def read(blob: ReplacedBlob, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join([piece async for piece in blob.stream(start, stop)])


async def test_a_good_copy_is_read_without_asking_anyone() -> None:
    blob = blob_of(Copy(), Unavailable("nobody is to be asked"))
    assert await read(blob) == DATA
    assert await read(blob, 13, 50) == DATA[13:50]


@pytest.mark.parametrize("bad_at", [0, 6, 7, 50, 99])
async def test_a_whole_blob_is_fetched_whole_and_goes_on_where_the_bad_copy_ended(
    bad_at: int,
) -> None:
    remote = Copy()
    assert await read(blob_of(Copy(bad_at), remote)) == DATA
    assert remote.streams == [(0, None)]
    assert remote.closed == 2


@pytest.mark.parametrize("bad_at", [3, 20, 40])
async def test_of_a_part_only_the_rest_is_fetched(bad_at: int) -> None:
    remote = Copy()
    assert await read(blob_of(Copy(bad_at), remote), 3, 60) == DATA[3:60]
    ((start, stop),) = remote.streams
    assert start == 3 + (bad_at - 3) // 7 * 7
    assert stop == 60


async def test_a_copy_that_nobody_can_replace_is_corrupt() -> None:
    with pytest.raises(Corrupt):
        await read(blob_of(Copy(50), NotFound("not elsewhere")))


async def test_when_nobody_can_say_the_blob_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await read(blob_of(Copy(50), Unavailable("too many are down")))


async def test_a_reader_that_leaves_midway_closes_both_copies() -> None:
    local, remote = Copy(10), Copy()
    blob = blob_of(local, remote)
    pieces = blob.stream()
    assert await anext(pieces) + await anext(pieces) == DATA[:14]
    await pieces.aclose()
    await blob.aclose()
    assert (local.closed, remote.closed) == (2, 2)


async def test_a_copy_that_was_cut_short_is_not_continued_with_a_longer_one() -> None:
    """Its size was announced, and more than that would be taken for the next answer."""
    local, remote = Copy(bad_at=0), Copy()
    local.size -= 10
    with pytest.raises(Corrupt):
        await read(blob_of(local, remote))
    assert remote.streams == []
    assert remote.closed == 1
