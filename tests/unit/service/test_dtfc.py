"""Which of several answers counts, where the cluster, peers and the tree say different things."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.doors.dtfc.wire import DIGEST, in_tree

from tierce.blobs.packed import SmallBlob
from tierce.core.dtfc import BUCKET
from tierce.core.errors import Corrupt, NotFound, TierceError, Unavailable
from tierce.names.index import Check
from tierce.names.record import Record
from tierce.node.dtfc_tree import Tree
from tierce.node.loads_reading import Loaded
from tierce.node.peer_loading import Busy
from tierce.node.source_race import Nowhere
from tierce.service.dtfc import DELETE_ORDER, Files, FoundFile

HELLO = SmallBlob(DIGEST, b"hello dtfc\n")


class Stub:
    """Blobs, objects and loads, each of which gives or raises what the test says."""

    def __init__(self) -> None:
        self.here: SmallBlob | BadBlob | TierceError = NotFound("not here")
        self.loaded: SmallBlob | TierceError = NotFound("no peer has it")
        self.answer: dict[str, Any] | TierceError = {"peers": {}}
        self.orders: list[str] = []
        self.in_force: Record | None = None
        self.kept: tuple[bytes, str] | None = None

    async def open(self, digest: object) -> Any:
        if isinstance(self.here, TierceError):
            raise self.here
        return self.here

    async def size(self, digest: object) -> int:
        if isinstance(self.here, TierceError):
            raise self.here
        return self.here.size

    def known(self, bucket: str, key: str) -> None:
        return None

    @contextlib.asynccontextmanager
    async def spooling(
        self, body: AsyncIterable[bytes], algorithm: str, **more: object
    ) -> AsyncIterator[bytes]:
        yield b"".join([piece async for piece in body])

    async def keep(self, spool: bytes, draft: Record, *, check: Check) -> Record:
        check(self.in_force)
        self.kept = spool, draft.name
        return msgspec.structs.replace(draft, digest=DIGEST)

    async def call(self, name: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        self.orders.append(name)
        if isinstance(self.answer, TierceError):
            raise self.answer
        return self.answer


class Loads:
    """What peers give, in the shape of LoadsReading."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub

    async def open(self, digest: object) -> Loaded:
        if isinstance(self._stub.loaded, TierceError):
            raise self._stub.loaded
        return Loaded("a.txt", self._stub.loaded)


def files(stub: Stub, directory: Path) -> Files:
    nothing: Any = None
    parts: Any = stub
    loads: Any = Loads(stub)
    return Files(parts, parts, loads, Tree(directory, nothing), stub.call, nothing)


async def test_a_file_of_the_tree_is_kept_unless_it_was_deleted_meanwhile(tmp_path: Path) -> None:
    stub = Stub()
    directory = in_tree(tmp_path)
    (directory / "data").write_bytes(b"hello dtfc\n")
    (directory / "filename").write_text("A b.txt\n")
    stub.in_force = Record(bucket=BUCKET, key=DIGEST.raw.hex(), deleted=True)
    with pytest.raises(NotFound):
        await files(stub, tmp_path).open(DIGEST, load=False)
    assert stub.kept is None
    stub.in_force = None
    with pytest.raises(NotFound, match="not here"):  # the stub keeps nothing that it could open
        await files(stub, tmp_path).open(DIGEST, load=False)
    assert stub.kept == (b"hello dtfc\n", "a-b.txt")


async def test_what_a_node_that_is_down_may_have_is_loaded_from_a_peer(tmp_path: Path) -> None:
    stub = Stub()
    stub.here, stub.loaded = Unavailable("a node is down"), HELLO
    found = await files(stub, tmp_path).open(DIGEST, load=True)
    assert (found.name, found.blob) == ("a.txt", HELLO)


@pytest.mark.parametrize("peers", [NotFound("none has it"), Nowhere("none answers")])
async def test_that_peers_lack_it_does_not_say_that_the_cluster_does(
    tmp_path: Path, peers: TierceError
) -> None:
    stub = Stub()
    stub.here, stub.loaded = Unavailable("a node is down"), peers
    with pytest.raises(Unavailable, match="a node is down"):
        await files(stub, tmp_path).open(DIGEST, load=True)


@pytest.mark.parametrize("peers", [NotFound("no"), Nowhere("down"), Busy("full")])
async def test_of_what_the_cluster_lacks_the_peers_decide(
    tmp_path: Path, peers: TierceError
) -> None:
    stub = Stub()
    stub.loaded = peers
    with pytest.raises(type(peers)) as caught:
        await files(stub, tmp_path).open(DIGEST, load=True)
    assert caught.value is peers


async def test_a_load_that_is_not_asked_for_is_not_made(tmp_path: Path) -> None:
    stub = Stub()
    stub.loaded = HELLO
    with pytest.raises(NotFound):
        await files(stub, tmp_path).open(DIGEST, load=False)


@pytest.mark.parametrize("word", ["deleted", "queued"])
async def test_a_file_that_only_a_peer_has_is_deleted_there(tmp_path: Path, word: str) -> None:
    stub = Stub()
    stub.answer = {"peers": {"http://a": word, "http://b": "not found"}}
    found = await files(stub, tmp_path).delete_everywhere(DIGEST)
    assert (found.is_deleted, found.peers["http://a"]) == (word == "deleted", word)


async def test_a_file_that_nobody_has_is_not_found(tmp_path: Path) -> None:
    stub = Stub()
    stub.answer = {"peers": {"http://b": "not found"}}
    with pytest.raises(NotFound):
        await files(stub, tmp_path).delete_everywhere(DIGEST)
    assert stub.orders == [DELETE_ORDER]


async def test_peers_are_not_told_while_it_is_not_known_whether_it_is_deleted_here(
    tmp_path: Path,
) -> None:
    stub = Stub()
    stub.here = Unavailable("a node is down")
    with pytest.raises(Unavailable):
        await files(stub, tmp_path).delete_everywhere(DIGEST)
    assert stub.orders == []


async def test_a_list_that_is_not_read_again_is_only_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stub = Stub()
    stub.answer = Unavailable("the agent is down")
    await files(stub, tmp_path).refresh()
    assert "the agent is down" in caplog.text


class BadBlob:
    """A copy whose second piece does not fit its digest."""

    digest, size, data = DIGEST, 11, None

    async def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        yield b"hello "
        raise Corrupt("a chunk's checksum does not fit")

    async def aclose(self) -> None:
        pass


async def _read(found: FoundFile) -> bytes:
    return b"".join([piece async for piece in found.blob.stream()])


async def test_a_copy_that_proves_bad_is_gone_on_with_from_a_peer(tmp_path: Path) -> None:
    stub = Stub()
    stub.here, stub.loaded = BadBlob(), HELLO
    assert await _read(await files(stub, tmp_path).open(DIGEST, load=True)) == b"hello dtfc\n"


@pytest.mark.parametrize("peers", [NotFound("none has it"), Nowhere("none answers")])
@pytest.mark.parametrize("load", [True, False])
async def test_that_a_copy_proved_bad_does_not_say_that_there_is_no_file(
    tmp_path: Path, load: bool, peers: TierceError
) -> None:
    stub = Stub()
    stub.here, stub.loaded = BadBlob(), peers
    with pytest.raises(Unavailable, match="here was bad"):
        await _read(await files(stub, tmp_path).open(DIGEST, load=load))


async def test_what_a_failing_disk_has_is_loaded_from_a_peer(tmp_path: Path) -> None:
    stub = Stub()
    stub.here, stub.loaded = Corrupt("the disk fails"), HELLO
    assert (await files(stub, tmp_path).open(DIGEST, load=True)).blob == HELLO
