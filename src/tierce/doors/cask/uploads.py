"""A file on its way in: what can be said of an upload before its body comes, and then its bytes.

Made before the body is asked for, so that whatever is wrong with the headers is refused while a
client that sent ``Expect: 100-continue`` still waits.
"""

from collections.abc import AsyncIterator

from aiohttp import web

from tierce.core.digest import Digest, new_hasher
from tierce.core.errors import TooLarge
from tierce.core.limits import MULTIPART_PREAMBLE_BYTES
from tierce.doors.cask.multipart import FileReader, boundary_of
from tierce.doors.shared.bodies import announced_bytes, body_of, refuse_encoded

NAME = "cask"
ALGORITHM = "sha1"
FIELD = "file"


class Upload:
    """The file of one POST. Read it once, with :meth:`content` or :meth:`digest`.

    ``key`` names it once it was received whole, also for whoever is then told that too few nodes
    could keep it; whoever receives it sets it.

    Raises BadRequest for a request that is no form, UnsupportedEncoding if it is compressed.
    """

    def __init__(self, request: web.BaseRequest, blob_limit_bytes: int) -> None:
        refuse_encoded(request)
        self._request = request
        self._blob_limit_bytes = blob_limit_bytes
        self.key: Digest | None = None
        boundary = boundary_of(request.headers.get("Content-Type", ""))
        # What comes beside the file is only counted, but it must end some time.
        beside_bytes = blob_limit_bytes + MULTIPART_PREAMBLE_BYTES
        self._reader = FileReader(boundary, FIELD, skip_limit_bytes=beside_bytes)

    @property
    def least_bytes(self) -> int | None:
        """The size that the file has at least, if the body's is announced and the rest is usual."""
        announced = announced_bytes(self._request)
        return None if announced is None else max(0, announced - MULTIPART_PREAMBLE_BYTES)

    @property
    def is_awaited(self) -> bool:
        """The client waits to be told whether to send the body at all."""
        expects = self._request.headers.get("Expect", "").lower() == "100-continue"
        return expects and not self._request.content.is_eof()

    async def content(self) -> AsyncIterator[bytes]:
        """Yield the file as it arrives. Raises BadRequest, TooSlow, ConnectionError."""
        async for data in body_of(self._request, NAME):
            for part in self._reader.feed(data):
                yield part
        self._reader.end()

    async def digest(self) -> Digest:
        """Read the file and say what its key would be, without keeping it. Raises TooLarge too."""
        size = 0
        hasher = new_hasher(ALGORITHM)
        async for part in self.content():
            hasher.update(part)
            size += len(part)
            if size > self._blob_limit_bytes:
                raise TooLarge(f"the file is larger than {self._blob_limit_bytes} bytes")
        return Digest(ALGORITHM, hasher.digest())
