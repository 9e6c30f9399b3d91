"""SOS in the cluster: ids that are SHA-1s and others, headers that are kept, and lists of all ids."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.node.fakes import member, members
from tests.unit.node.object_bench import Bench, content_of, now_ns, on_bench

from tierce.cluster.member import Member
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Full, NotFound, TierceError, TooLarge, Unavailable
from tierce.core.limits import BLOB_LIMIT_BYTES, LIST_LIMIT_DEFAULT, METADATA_BYTES
from tierce.core.sos import SosStored
from tierce.names.record import Record
from tierce.service.blobs import Blobs
from tierce.service.objects import Objects
from tierce.service.sos_blobs import SOS_BUCKET, SosBlobs, is_id, media_type

DATA = b"hello sos\n"
ID = "9158b25cc157bfe22486d492dfcd9533073bf6db"
BLOB = Digest.of(DATA, "sha1")
OTHER_ID = "0" * 40
TEXT = {"X-Mime-Type": "text/plain", "X-Owner": "steve"}


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


class Service:
    """SOS on node a."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.blobs = Blobs(bench.store, bench.spools, bench.room, bench.blobs)
        self.objects = Objects(self.blobs, bench.index, bench.objects)
        self.sos = SosBlobs(self.blobs, self.objects)

    async def put(self, data: bytes, **metadata: str) -> SosStored:
        return await self.sos.put(pieces(data), headers(metadata))

    async def put_as(self, sos_id: str, data: bytes, **metadata: str) -> SosStored:
        return await self.sos.put_as(sos_id, pieces(data), headers(metadata))

    async def get(self, sos_id: str) -> tuple[bytes, dict[str, str]]:
        found = await self.sos.open(sos_id)
        known = await self.sos.know(sos_id)
        assert (known.size, known.metadata) == (found.content.size, found.metadata)
        assert (known.modified, known.etag) == (found.modified, found.etag)
        return await content_of(found.content), dict(found.metadata)  # type: ignore[arg-type]

    async def ids(self) -> list[str]:
        return [each async for each in self.sos.ids()]

    def record(self, sos_id: str) -> Record | None:
        return self.bench.index.get(SOS_BUCKET, sos_id)


def headers(metadata: dict[str, str]) -> dict[str, str]:
    return {f"X-{name}": value for name, value in metadata.items()}


def on_service(
    directory: Path, test: Callable[[Service], Awaitable[None]], given: list[Member] | None = None
) -> None:
    async def check(bench: Bench) -> None:
        await test(Service(bench))

    on_bench(directory, check, given or [member("a", replication=1)])


def test_an_upload_is_a_blob_by_its_sha1_and_nothing_else(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        assert await service.put(DATA) == SosStored(ID, 10)
        assert service.record(ID) is None
        assert service.bench.store.managed([BLOB]) == [False]
        assert await service.get(ID) == (DATA, {})
        assert (await service.sos.know(ID)).etag == f'"sha1:{ID}"'
        assert await service.ids() == [ID]

    on_service(tmp_path, check)


def test_headers_are_kept_in_a_record_over_a_blob_that_is_never_collected(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        await service.sos.put(pieces(DATA), TEXT)
        record = service.record(ID)
        assert record is not None
        assert (record.digest, record.size, record.content_type) == (BLOB, 10, "text/plain")
        assert record.metadata == TEXT
        assert service.bench.store.managed([BLOB]) == [False]
        assert await service.get(ID) == (DATA, TEXT)
        assert (await service.sos.know(ID)).modified == now_ns()
        assert await service.ids() == [ID]

    on_service(tmp_path, check)


def test_the_same_bytes_again_keep_the_headers_unless_there_are_new_ones(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        await service.put(DATA, A="1", B="2")
        await service.put(DATA)
        await service.put_as(ID, DATA)
        assert await service.get(ID) == (DATA, {"X-A": "1", "X-B": "2"})
        await service.put_as(ID, DATA, A="3")
        assert await service.get(ID) == (DATA, {"X-A": "3"})

    on_service(tmp_path, check)


@pytest.mark.parametrize("sos_id", ["steve", "any-Name_1.txt", OTHER_ID, "f" * 64])
def test_any_other_id_is_an_object_that_is_replaced_with_its_headers(
    tmp_path: Path, sos_id: str
) -> None:
    async def check(service: Service) -> None:
        assert await service.put_as(sos_id, b"first", A="1") == SosStored(sos_id, 5)
        assert await service.get(sos_id) == (b"first", {"X-A": "1"})
        await service.put_as(sos_id, b"second")
        assert await service.get(sos_id) == (b"second", {})
        assert await service.ids() == [sos_id]
        record = service.record(sos_id)
        assert record is not None
        assert service.bench.store.managed([record.content]) == [True]

    on_service(tmp_path, check)


def test_an_id_of_other_bytes_does_not_hide_what_is_put_under_its_sha1_later(
    tmp_path: Path,
) -> None:
    async def check(service: Service) -> None:
        await service.put_as(ID, b"not these", A="1")
        assert await service.get(ID) == (b"not these", {"X-A": "1"})
        await service.put(DATA)
        assert await service.get(ID) == (DATA, {})
        await service.put_as(ID, b"nor these")
        assert await service.get(ID) == (b"nor these", {})

    on_service(tmp_path, check)


def test_what_is_there_for_another_id_only_is_not_listed_until_it_is_put_itself(
    tmp_path: Path,
) -> None:
    async def check(service: Service) -> None:
        await service.put_as(OTHER_ID, DATA)
        assert await service.ids() == [OTHER_ID]
        await service.put(DATA)
        assert await service.ids() == [OTHER_ID, ID]
        assert service.bench.store.managed([BLOB]) == [False]

    on_service(tmp_path, check)


def test_a_sha1_that_is_the_content_of_no_id_is_found_as_well(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        await service.blobs.receive(pieces(DATA), "sha1")
        await service.blobs.receive(pieces(DATA), "sha256")
        assert await service.get(ID) == (DATA, {})
        assert await service.ids() == [ID]

    on_service(tmp_path, check)


@pytest.mark.parametrize("sos_id", ["nobody", OTHER_ID, "", ".a", "a/b", "../a", "a" * 256, "ä"])
def test_what_is_not_there_or_is_no_id_is_not_found(tmp_path: Path, sos_id: str) -> None:
    async def check(service: Service) -> None:
        await service.put(DATA)
        for ask in (service.sos.open, service.sos.know):
            with pytest.raises(NotFound):
                await ask(sos_id)

    on_service(tmp_path, check)


def test_a_deleted_name_is_gone(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        await service.put_as("steve", DATA)
        await service.objects.delete(SOS_BUCKET, "steve")
        with pytest.raises(NotFound):
            await service.sos.open("steve")
        assert await service.ids() == []

    on_service(tmp_path, check)


@pytest.mark.parametrize("sos_id", ["", ".", "..", ".a", "a/b", "a b", "a\n", "ä", "a" * 256, "٣"])
def test_nothing_is_stored_under_what_is_no_id(tmp_path: Path, sos_id: str) -> None:
    async def check(service: Service) -> None:
        with pytest.raises(BadRequest):
            await service.put_as(sos_id, DATA)
        assert await service.ids() == []
        assert service.bench.store.blobs == {}

    on_service(tmp_path, check)


@given(st.from_regex(r"[a-z0-9]{1,255}", fullmatch=True))
def test_what_go_takes_is_an_id(sos_id: str) -> None:
    assert is_id(sos_id)


@pytest.mark.parametrize(
    ("metadata", "announced", "error"),
    [
        ({"X-A": "a" * METADATA_BYTES}, None, TooLarge),
        ({"X-A": "\udcff"}, None, BadRequest),
        ({}, BLOB_LIMIT_BYTES + 1, TooLarge),
    ],
)
def test_what_is_too_much_is_refused_before_the_body_comes(
    tmp_path: Path, metadata: dict[str, str], announced: int | None, error: type[TierceError]
) -> None:
    async def check(service: Service) -> None:
        asked = []

        async def unread() -> AsyncIterator[bytes]:
            asked.append("the body")
            yield b""

        with pytest.raises(error):
            await service.sos.put(unread(), metadata, announced_bytes=announced)
        for sos_id in ("steve", ID):
            with pytest.raises(error):
                await service.sos.put_as(sos_id, unread(), metadata, announced_bytes=announced)
        assert asked == []

    on_service(tmp_path, check)


def test_a_body_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        async def broken() -> AsyncIterator[bytes]:
            yield DATA
            raise BadRequest("it broke off")

        for post in (service.sos.put(broken(), {}), service.sos.put_as(ID, broken(), {})):
            with pytest.raises(BadRequest):
                await post
        assert await service.ids() == []

    on_service(tmp_path, check)


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_a_list_has_every_id_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, blobs: set[int], names: set[int]
) -> None:
    async def check(service: Service) -> None:
        contents = [f"content {number}".encode() for number in range(31)]
        expected = set()
        for number in blobs:
            expected.add((await service.put(contents[number])).id)
        for number in names:
            sos_id = hashlib.sha1(contents[number]).hexdigest()
            expected.add((await service.put_as(sos_id, contents[number], A="1")).id)
        await service.objects.put(Record(bucket=SOS_BUCKET, key="no/id"), pieces(b"x"))
        assert await service.ids() == sorted(expected)

    on_service(tmp_path_factory.mktemp("list"), check)


def test_a_list_goes_on_over_pages(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        count = LIST_LIMIT_DEFAULT + 1
        digests = [Digest.of(f"{number}".encode(), "sha1") for number in range(count)]
        service.bench.store.blobs.update(dict.fromkeys(digests, b""))
        names = [f"name-{number:05}" for number in range(count)]
        records = [Record(bucket=SOS_BUCKET, key=each, timestamp=1, digest=BLOB) for each in names]
        await service.bench.index.merge(records)
        assert await service.ids() == sorted([*names, *(each.hex for each in digests)])

    on_service(tmp_path, check)


def test_headers_are_known_only_when_the_bytes_are_durable(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        put = service.bench.peers.of["b"]
        seen: list[Record | None] = []

        async def look(_: str) -> None:
            seen.append(service.record(ID))

        service.bench.peers.when_stored = look
        await service.put(DATA, A="1")
        assert seen
        assert set(seen) == {None}
        assert BLOB in put.blobs
        assert service.bench.records.having(SOS_BUCKET, ID)

    on_service(tmp_path, check, members(3, replication=3))


def test_without_enough_nodes_neither_bytes_nor_headers_are_acknowledged(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        for peer in service.bench.peers.of.values():
            peer.error = Full("full")
        for post in (
            service.put(DATA, A="1"),
            service.put_as("steve", DATA),
            service.put_as(ID, DATA),
        ):
            with pytest.raises((Unavailable, Full)):
                await post
        assert service.record(ID) is None
        assert service.record("steve") is None

    on_service(tmp_path, check, members(3, replication=3))


def test_a_name_whose_bytes_no_node_has_now_is_unavailable(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        await service.put_as("steve", DATA)
        service.bench.store.blobs.clear()
        for ask in (service.sos.open, service.sos.know):
            with pytest.raises(Unavailable):
                await ask("steve")

    on_service(tmp_path, check)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("text/plain", "text/plain"),
        (" image/svg+xml; charset=utf-8 ", "image/svg+xml; charset=utf-8"),
        ("", ""),
        ("text", ""),
        ("text/plain\r\nX-Evil: 1", ""),
        ("text/plän", ""),
        ("a/b;" + "c" * 2000, ""),
    ],
)
def test_only_what_can_be_a_type_is_one(text: str, found: str) -> None:
    assert media_type({"X-Mime-Type": text}) == found
