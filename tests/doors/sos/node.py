"""The three SOS doors before one disk: a node without a cluster. Its parts can be reached."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.doors.cask.wire import RawAnswer, ask
from tests.doors.native.object_node import AloneObjects, AlonePath
from tests.doors.objstore.near_cache import listening

from tierce.blobs.local import Disk, make_directories
from tierce.blobs.space import SpaceGuard
from tierce.core.rights import ALL_RIGHTS, Right, Token
from tierce.core.sos import SosStore
from tierce.doors.sos import routes
from tierce.names.memory import MemoryIndex
from tierce.service.access import Access
from tierce.service.blobs import Blobs
from tierce.service.objects import Objects
from tierce.service.sos_blobs import SosBlobs

HELLO = b"hello sos\n"
ID = "9158b25cc157bfe22486d492dfcd9533073bf6db"
OK = f'{{"id":"{ID}","size":10,"status":"OK"}}'.encode()
UNKNOWN = "0" * 40
FORM = "Content-Type: application/x-www-form-urlencoded"  # curl says so unless told otherwise


@dataclass
class SosNode:
    """Where the doors answer, and what is behind them."""

    disk: Disk
    index: MemoryIndex
    path: AlonePath
    sos: SosBlobs
    upload: str = ""
    download: str = ""
    blob: str = ""

    async def post(self, *headers: str, body: bytes = HELLO, sos_id: str = "") -> RawAnswer:
        """Upload as ``curl --data-binary`` does, or post to the blob server if an id is given."""
        if sos_id:
            return await ask(self.blob, "POST", f"/blob/{sos_id}", FORM, *headers, body=body)
        return await ask(self.upload, "POST", "/upload", FORM, *headers, body=body)

    async def fetch(self, *headers: str, name: str = ID, method: str = "GET") -> RawAnswer:
        return await ask(self.download, method, f"/fetch/{name}", *headers)

    async def get(self, *headers: str, sos_id: str = ID, method: str = "GET") -> RawAnswer:
        return await ask(self.blob, method, f"/blob/{sos_id}", *headers)


@asynccontextmanager
async def sos_node(
    data: Path,
    *,
    anonymous: frozenset[Right] = ALL_RIGHTS,
    tokens: tuple[Token, ...] = (),
    store: SosStore | None = None,
    read_only: bool = False,
) -> AsyncIterator[SosNode]:
    """Run the doors; those for uploads and downloads over ``store``, if there is one."""
    make_directories(data)
    disk = Disk(data, space=SpaceGuard(data, reserve_bytes=0, read_only=read_only))
    index = MemoryIndex("a", epoch="first")
    path = AlonePath(disk, index)
    blobs = Blobs(disk.store, disk.spooler, disk.space, path)
    sos = SosBlobs(blobs, Objects(blobs, index, AloneObjects(path)))
    access = Access(tokens, anonymous)
    node = SosNode(disk, index, path, sos)
    doors = (
        routes.upload_door(store or sos, access, log_requests=False),
        routes.download_door(store or sos, access, log_requests=False),
        routes.blob_door(sos, access, log_requests=False),
    )
    async with AsyncExitStack() as held:
        held.push_async_callback(disk.close)
        node.upload, node.download, node.blob = [
            await held.enter_async_context(listening(door)) for door in doors
        ]
        yield node
