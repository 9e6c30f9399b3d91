"""A blob's bytes in a spool: whole and verified, and nothing is left open or lying about."""

from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from tierce.blobs.copying import copying
from tierce.blobs.local import Disk, make_directories
from tierce.blobs.space import SpaceGuard
from tierce.core.digest import Digest
from tierce.core.errors import DigestMismatch, Unavailable
from tierce.core.limits import PIECE_BYTES
from tierce.testing.blob_contract import body


class Blob:
    """An open blob whose stream sends ``sent``, or breaks off behind it."""

    data = None

    def __init__(self, digest: Digest, sent: bytes, *, breaks: bool = False) -> None:
        self.digest = digest
        self.size = len(sent)
        self.closed = 0
        self._sent = sent
        self._breaks = breaks

    async def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        yield self._sent
        if self._breaks:
            raise Unavailable("the connection was cut")

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    make_directories(tmp_path)
    made = Disk(tmp_path, space=SpaceGuard(tmp_path, reserve_bytes=0))
    yield made
    await made.close()


def left(disk: Disk) -> list[Path]:
    return list(disk.spooler.directory.iterdir())


@pytest.mark.parametrize("size", [0, 100, PIECE_BYTES + 1])
@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
async def test_a_copy_has_the_bytes_and_the_name_of_the_blob(
    disk: Disk, size: int, algorithm: str
) -> None:
    data = body(size)
    blob = Blob(Digest.of(data, algorithm), data)
    async with copying(disk.spooler, blob) as spool:
        assert blob.closed == 1
        assert (spool.digest, spool.size) == (blob.digest, size)
        await disk.store.put(spool)
    assert await disk.store.verify(blob.digest, repair=False) == size
    assert left(disk) == []


@pytest.mark.parametrize(
    ("sent", "breaks", "error"),
    [(b"other", False, DigestMismatch), (bytes(PIECE_BYTES), True, Unavailable)],
    ids=["another content", "broken off"],
)
async def test_a_copy_that_fails_leaves_nothing(
    disk: Disk, sent: bytes, breaks: bool, error: type[Exception]
) -> None:
    blob = Blob(Digest.of(b"content"), sent, breaks=breaks)
    with pytest.raises(error):
        async with copying(disk.spooler, blob):
            pytest.fail("it was finished")
    assert blob.closed == 1
    assert left(disk) == []
