"""What is in a media file: container, streams, duration, dimensions, tags. PyAV does the work.

Each file is looked into by a process of its own (media_child.py), as the input may be hostile: with
limits on memory and time, no files and no network of its own. It asks for the bytes that it needs, which
are verified as all that is read from a store. What was found is remembered: a digest's content does not
change.
"""

import asyncio
import contextlib
import json
import socket
import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from tierce.blobs.store import OpenBlob
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Unavailable
from tierce.core.limits import (
    MEDIA_AT_ONCE,
    MEDIA_KEPT_COUNT,
    MEDIA_OUTPUT_BYTES,
    MEDIA_READ_BYTES,
    MEDIA_SECONDS,
)
from tierce.node.media_child import BLOCK_BYTES, REQUEST

_CHILD = (sys.executable, "-I", "-m", "tierce.node.media_child")


class NotMedia(BadRequest):
    """The content is no audio, video or picture that can be read."""


class NoProber(Unavailable):
    """What it takes to look into media files is not installed on this node."""


class MediaProbe:
    """Looks into media files, a few at a time. ``command`` is how the process is started."""

    def __init__(
        self,
        *,
        command: Sequence[str] = _CHILD,
        seconds: float = MEDIA_SECONDS,
        read_bytes: int = MEDIA_READ_BYTES,
    ) -> None:
        self._command = tuple(command)
        self._seconds = seconds
        self._read_bytes = read_bytes
        self._turns = asyncio.Semaphore(MEDIA_AT_ONCE)
        self._known: OrderedDict[Digest, dict[str, Any]] = OrderedDict()

    async def describe(self, blob: OpenBlob) -> dict[str, Any]:
        """The account of an open blob: ``format`` and ``streams``. Does not close it.

        Raises NotMedia, NoProber, and Corrupt, NotFound or Unavailable where the blob can't be read.
        """
        known = self._known.get(blob.digest)
        if known is not None:
            self._known.move_to_end(blob.digest)
            return known
        async with self._turns:
            found = await self._probe(blob)
        if "missing" in found:
            raise NoProber(
                "this node can't look into media files: PyAV is not installed",
                hint="Install it on the node: pip install 'tierce[media]'.",
            )
        if "not_media" in found:
            raise NotMedia(
                f"{blob.digest} is no media file: {found['not_media']}",
                hint="Only audio, video and pictures have such metadata.",
            )
        self._known[blob.digest] = found
        if len(self._known) > MEDIA_KEPT_COUNT:
            self._known.popitem(last=False)
        return found

    async def _probe(self, blob: OpenBlob) -> dict[str, Any]:
        ours, theirs = socket.socketpair()
        with contextlib.closing(ours), contextlib.closing(theirs):
            process = await asyncio.create_subprocess_exec(
                *self._command,
                str(blob.size),
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
            )
            theirs.close()
            serving = asyncio.create_task(self._serve(ours, blob))
            try:
                async with asyncio.timeout(self._seconds):
                    assert process.stdout is not None, "the child's output is a pipe"
                    output = await process.stdout.read(MEDIA_OUTPUT_BYTES + 1)
            except TimeoutError:
                output = b""
            finally:
                serving.cancel()
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await asyncio.gather(serving, process.wait(), return_exceptions=True)
        if not serving.cancelled() and (failure := serving.exception()) is not None:
            raise failure
        return _parsed(output)

    async def _serve(self, channel: socket.socket, blob: OpenBlob) -> None:
        """Answer the child's requests until it ends. Raises what reading the blob does."""
        loop = asyncio.get_running_loop()
        channel.setblocking(False)
        left = self._read_bytes
        try:
            while head := await _exactly(loop, channel, REQUEST.size):
                start, length = REQUEST.unpack(head)
                left -= length
                if length > BLOCK_BYTES or start + length > blob.size or left < 0:
                    return  # whoever asks so is under somebody else's control, or never gets enough
                pieces = blob.stream(start, start + length)
                try:
                    async for piece in pieces:
                        await loop.sock_sendall(channel, piece)
                finally:
                    await pieces.aclose()
        except ConnectionError:
            return
        finally:
            channel.close()


async def _exactly(
    loop: asyncio.AbstractEventLoop, channel: socket.socket, length: int
) -> bytes | None:
    found = bytearray()
    while len(found) < length:
        more = await loop.sock_recv(channel, length - len(found))
        if not more:
            return None
        found += more
    return bytes(found)


def _parsed(output: bytes) -> dict[str, Any]:
    """What the child said. One that was stopped, or died, has said nothing, or only a part."""
    if len(output) <= MEDIA_OUTPUT_BYTES:
        with contextlib.suppress(ValueError):
            found = json.loads(output)
            if isinstance(found, dict):
                return found
    return {"not_media": "it takes more time or memory to read than it may, or breaks the reader"}
