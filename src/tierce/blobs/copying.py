"""An open blob's bytes in a spool: how a blob that is elsewhere comes to be kept here."""

import contextlib
from collections.abc import AsyncIterator

from tierce.blobs.spool import Spool, Spooler
from tierce.blobs.store import OpenBlob


@contextlib.asynccontextmanager
async def copying(
    spooler: Spooler, blob: OpenBlob, *, passing: bool = False
) -> AsyncIterator[Spool]:
    """A finished spool of a whole blob, discarded at the end; the blob is closed in any case.

    ``passing``: as that of Spooler.new. Entering raises what reading the blob and writing the spool
    do: Unavailable, Corrupt, Full, ReadOnly, TooLarge, DigestMismatch.
    """
    spool = spooler.new(blob.digest.algorithm, expected=(blob.digest,), passing=passing)
    try:
        try:
            pieces = blob.stream()
            try:
                async for piece in pieces:
                    await spool.write(piece)
            finally:
                await pieces.aclose()
            await spool.finish()
        finally:
            await blob.aclose()
        yield spool
    finally:
        await spool.discard()
