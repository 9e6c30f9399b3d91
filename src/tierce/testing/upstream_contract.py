"""The contract of an upstream (upstream/tier.py) as tests.

A new implementation's test is: a subclass whose ``bench`` fixture yields an UpstreamBench.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Corrupt, NotFound, TooLarge
from tierce.names.record import FULL, LOCAL, UPSTREAM, Record
from tierce.testing.blob_contract import body
from tierce.upstream.tier import Upstream

KEY = "01BRNMMS1DK3CBD4ZZM2TQ8C5B"
NANOSECONDS = 1_503_965_375_123_456_789


class BytesSource:
    """A source of bytes, in memory or streamed. ``breaks_at``: where a streamed one turns out bad.

    ``started`` is set when the first piece was asked for; ``is_stuck``: no second one ever comes.
    """

    def __init__(
        self,
        data: bytes,
        *,
        is_streamed: bool = False,
        breaks_at: int | None = None,
        is_stuck: bool = False,
        piece_bytes: int = 256 * 1024,
    ) -> None:
        self._data = data
        self.data = None if is_streamed else data
        self.digest = Digest.of(data)
        self.size = len(data)
        self.breaks_at = breaks_at
        self.is_stuck = is_stuck
        self.piece_bytes = piece_bytes
        self.started = asyncio.Event()

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """See Source."""
        for at in range(0, self.size, self.piece_bytes):
            if self.breaks_at is not None and at >= self.breaks_at:
                raise Corrupt("the copy is bad")
            if self.is_stuck and at:
                self.started.set()
                await asyncio.Event().wait()
            yield self._data[at : at + self.piece_bytes]


@dataclass
class UpstreamBench:
    """An upstream under test. ``put_foreign`` puts an object beside it, as another program would;
    ``names`` tells all that is stored; ``sizes`` in bytes are those to try."""

    upstream: Upstream
    put_foreign: Callable[[str, bytes], None]
    names: Callable[[], list[str]]
    sizes: list[int] = field(default_factory=lambda: [0, 1, 100_000])

    async def read(self, key: str) -> bytes:
        async with self.upstream.open(key) as found, aclosing_pieces(found.pieces) as pieces:
            return b"".join([piece async for piece in pieces])


def aclosing_pieces(pieces: object) -> "aclosing[AsyncGenerator[bytes, None]]":
    """Pieces are async generators in all implementations here; close one that is left early."""
    assert isinstance(pieces, AsyncGenerator)
    return aclosing(pieces)


def record_of(source: BytesSource, **fields: object) -> Record:
    """A record of a source as a node would write it, with some ``fields`` changed."""
    usual: dict[str, object] = {
        "bucket": "objstore",
        "key": KEY,
        "timestamp": NANOSECONDS,
        "node": "01BRNMMS1DK3CBD4ZZM2TQ8C5C",
        "digest": source.digest,
        "size": source.size,
        "name": "test.txt",
        "level": UPSTREAM,
    }
    return Record(**{**usual, **fields})  # type: ignore[arg-type]  # the fields of a test


METADATA = [
    {},
    {"plain": "value", "two-words": "two words"},
    {"Case": "Upper", "sPonGe": "x", "case2": "y"},
    {"Same": "1", "same": "2", "SAME": "3"},
    {"имя": "Зоя", "name": "Zoé", "emoji": "🛢"},
    {"spaces": "  a   b  ", "empty": "", "line": "a\nb", "colon:key": "v", "": "nameless"},
    {"tierce": "x", "usermeta-a": "y", "id": "z"},
]


class UpstreamContract:
    """Every line of the protocol's comments that can be seen from outside."""

    async def test_what_was_uploaded_is_read_back(self, bench: UpstreamBench) -> None:
        for size in bench.sizes:
            for is_streamed in (False, True):
                source = BytesSource(body(size), is_streamed=is_streamed)
                key = f"{size}-{is_streamed}"
                await bench.upstream.upload(record_of(source, key=key), source)
                assert await bench.read(key) == body(size)
                assert (await bench.upstream.stat(key)).size == size

    @pytest.mark.parametrize("metadata", METADATA, ids=[str(n) for n in range(len(METADATA))])
    async def test_the_record_is_read_back(
        self, bench: UpstreamBench, metadata: dict[str, str]
    ) -> None:
        source = BytesSource(b"abc")
        names = ("a.css", "", "Zoë 1.txt", "  odd  name ", "dir/a.b")
        for number, name in enumerate(names):
            fields = {
                "timestamp": NANOSECONDS + number,
                "name": name,
                "metadata": metadata,
                "level": FULL,
                "modified": NANOSECONDS - 7,
            }
            await bench.upstream.upload(record_of(source, **fields), source)
            expected = record_of(source, bucket="", is_upstream=True, **fields)
            assert await bench.upstream.stat(KEY) == expected
            async with bench.upstream.open(KEY) as found:
                assert found.record == expected

    async def test_a_content_type_that_the_name_does_not_tell_is_read_back(
        self, bench: UpstreamBench
    ) -> None:
        source = BytesSource(b"abc")
        await bench.upstream.upload(record_of(source, content_type="image/x-own"), source)
        assert (await bench.upstream.stat(KEY)).content_type == "image/x-own"

    async def test_what_the_upstream_has_is_of_level_1_at_least(self, bench: UpstreamBench) -> None:
        source = BytesSource(b"abc")
        await bench.upstream.upload(record_of(source, level=LOCAL), source)
        assert (await bench.upstream.stat(KEY)).level == UPSTREAM

    async def test_what_was_never_uploaded_is_not_found(self, bench: UpstreamBench) -> None:
        for key in (KEY, "a/b", "../a", "", "a//b", "a/", " a"):
            with pytest.raises(NotFound):
                await bench.upstream.stat(key)
            with pytest.raises(NotFound):
                async with bench.upstream.open(key):
                    pass
            await bench.upstream.delete(key)

    async def test_what_was_deleted_is_not_found(self, bench: UpstreamBench) -> None:
        source = BytesSource(b"abc")
        await bench.upstream.upload(record_of(source), source)
        await bench.upstream.delete(KEY)
        with pytest.raises(NotFound):
            await bench.upstream.stat(KEY)
        assert bench.names() == []

    async def test_a_later_upload_takes_the_place_of_the_first(self, bench: UpstreamBench) -> None:
        first, second = BytesSource(b"first", is_streamed=True), BytesSource(b"other")
        await bench.upstream.upload(record_of(first, metadata={"a": "b"}, name="x"), first)
        later = record_of(second, timestamp=NANOSECONDS + 1)
        await bench.upstream.upload(later, second)
        found = await bench.upstream.stat(KEY)
        assert (found.digest, found.timestamp, found.metadata, found.name) == (
            second.digest,
            NANOSECONDS + 1,
            {},
            "test.txt",
        )
        assert await bench.read(KEY) == b"other"

    async def test_uploading_again_changes_nothing(self, bench: UpstreamBench) -> None:
        for size in bench.sizes:
            source = BytesSource(body(size), is_streamed=True)
            record = record_of(source, metadata={"a": "b"})
            await bench.upstream.upload(record, source)
            before = await bench.upstream.stat(KEY), bench.names()
            await bench.upstream.upload(record, source)
            assert (await bench.upstream.stat(KEY), bench.names()) == before
            assert await bench.read(KEY) == body(size)

    async def test_a_source_that_turns_out_bad_leaves_nothing(self, bench: UpstreamBench) -> None:
        data = body(bench.sizes[-1])
        source = BytesSource(
            data, is_streamed=True, breaks_at=len(data) * 9 // 10, piece_bytes=10_000
        )
        with pytest.raises(Corrupt):
            await bench.upstream.upload(record_of(source), source)
        with pytest.raises(NotFound):
            await bench.upstream.stat(KEY)
        assert bench.names() == []

    async def test_a_source_that_ends_early_leaves_nothing(self, bench: UpstreamBench) -> None:
        data = body(bench.sizes[-1])
        source = BytesSource(data[:-1], is_streamed=True)
        source.size += 1
        with pytest.raises(Corrupt):
            await bench.upstream.upload(record_of(source), source)
        with pytest.raises(NotFound):
            await bench.upstream.stat(KEY)

    async def test_an_upload_that_is_given_up_leaves_what_was_there(
        self, bench: UpstreamBench
    ) -> None:
        old = BytesSource(b"old")
        await bench.upstream.upload(record_of(old), old)
        source = BytesSource(
            body(bench.sizes[-1]),
            is_streamed=True,
            is_stuck=True,
            piece_bytes=bench.sizes[-1] * 9 // 10,
        )
        task = asyncio.create_task(
            bench.upstream.upload(record_of(source, timestamp=NANOSECONDS + 1), source)
        )
        await asyncio.wait_for(source.started.wait(), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await bench.read(KEY) == b"old"
        assert (await bench.upstream.stat(KEY)).timestamp == NANOSECONDS

    async def test_an_object_of_another_program_is_found(self, bench: UpstreamBench) -> None:
        bench.put_foreign("foreign", b"by hand")
        found = await bench.upstream.stat("foreign")
        assert (found.key, found.size, found.digest, found.level, found.is_upstream) == (
            "foreign",
            7,
            None,
            UPSTREAM,
            True,
        )
        assert (found.name, found.metadata, found.node, found.bucket) == ("", {}, "", "")
        assert await bench.read("foreign") == b"by hand"

    async def test_a_content_that_another_program_changed_has_no_digest(
        self, bench: UpstreamBench
    ) -> None:
        source = BytesSource(b"ours")
        await bench.upstream.upload(record_of(source), source)
        bench.put_foreign(KEY, b"theirs")
        found = await bench.upstream.stat(KEY)
        assert (found.size, found.digest) == (6, None)
        assert await bench.read(KEY) == b"theirs"

    async def test_many_at_once_do_not_disturb_each_other(self, bench: UpstreamBench) -> None:
        sources = {f"key-{number}": BytesSource(body(5000, seed=number)) for number in range(20)}
        await asyncio.gather(
            *(
                bench.upstream.upload(record_of(each, key=key), each)
                for key, each in sources.items()
            )
        )
        found = await asyncio.gather(*(bench.read(key) for key in sources))
        assert found == [each.data for each in sources.values()]

    async def test_a_reader_may_leave_early(self, bench: UpstreamBench) -> None:
        source = BytesSource(body(bench.sizes[-1]), is_streamed=True)
        await bench.upstream.upload(record_of(source), source)
        async with (
            bench.upstream.open(KEY) as found,
            aclosing_pieces(found.pieces) as pieces,
        ):
            first = await anext(pieces)
        assert body(bench.sizes[-1]).startswith(first)
        assert await bench.read(KEY) == body(bench.sizes[-1])

    async def test_an_upstream_that_works_passes_the_check(self, bench: UpstreamBench) -> None:
        assert await bench.upstream.check() is None  # type: ignore[func-returns-value]

    async def test_metadata_that_does_not_fit_is_refused_before_anything_is_sent(
        self, bench: UpstreamBench
    ) -> None:
        source = BytesSource(b"abc")
        record = record_of(source, metadata={"a": "\ud800"})
        with pytest.raises((BadRequest, TooLarge)):
            await bench.upstream.upload(record, source)
        assert bench.names() == []
