"""The contract of an index of records (names/index.py) as tests.

A new implementation's test is: a subclass whose ``index`` fixture yields an empty index of NODE.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Conflict
from tierce.core.limits import EPOCHS_COUNT, INDEX_KEY_BYTES, OBJECT_KEY_BYTES, REFERENCES_COUNT
from tierce.names.changes import Position, resume
from tierce.names.index import Change, Index, NameCounts
from tierce.names.record import Record

NODE = "node-m"
CONTENT, OTHER = Digest.of(b"content"), Digest.of(b"other", "sha256")

LONG = "l" * (INDEX_KEY_BYTES - 1)
KEYS = sorted([
    "a", "a/", "a/b", "a/b/c", "a/é", "a0", "ab", "b", "z", "Z", "\x01", "\x7f", "é", "e\u0301",
    "\u07ff", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", "\U0010ffff" * 256,
    LONG, LONG + "a", LONG + "a/", LONG + "ab", LONG + "a" * 625, LONG + "b", LONG + "bz/",
    LONG + "by", LONG + "é", LONG + "é1", LONG + "é0", LONG + "\U0010ffff" + "0", LONG[1:],
])  # fmt: skip
"""Keys at every border: of UTF-8's lengths, of what an index may cut off, of what a key may be."""


def record(key: str, timestamp: int = 1, **fields: Any) -> Record:
    """A record as it comes from another node."""
    plain = Record(
        bucket="bucket", key=key, timestamp=timestamp, node="node-a", digest=CONTENT, size=7
    )
    return msgspec.structs.replace(plain, **fields)


def tombstone(key: str, timestamp: int = 1, **fields: Any) -> Record:
    return record(key, timestamp, deleted=True, digest=None, **fields)


def keys_of(records: Sequence[Record]) -> list[str]:
    return [each.key for each in records]


async def state_of(index: Index) -> tuple[list[Change], NameCounts, int]:
    """What must be as it was where nothing is to have changed."""
    return await index.changes(0, 10_000), index.counts(), index.last_seq()


class IndexContract:
    """Every line of the protocol's comments that can be seen from outside."""

    async def test_at_first_there_is_nothing(self, index: Index) -> None:
        assert index.get("bucket", "key") is None
        assert await index.list_after("bucket", "", "", 10, deleted=True) == []
        assert await index.scan_after(None, 10) == []
        assert await index.changes(0, 10) == []
        assert (index.last_seq(), index.counts()) == (0, NameCounts(0, 0))
        assert index.refers(CONTENT) == []
        assert index.latest() == 0
        assert len(index.epochs()) >= 1

    async def test_a_write_is_read_back_with_its_time_and_node(self, index: Index) -> None:
        for number, key in enumerate(KEYS):
            draft = record(key, 5, name=f"näme {number}", metadata={"a": "ü"}, level=1, modified=3)
            written = await index.write(draft, now=1000 + number)
            assert written == msgspec.structs.replace(draft, timestamp=1000 + number, node=NODE)
            assert index.get("bucket", key) == written
        assert index.counts() == NameCounts(len(KEYS), 0)

    async def test_a_write_counts_though_the_clock_was_set_back(self, index: Index) -> None:
        first = await index.write(record("key"), now=1000)
        second = await index.write(record("key", size=8), now=10)
        assert second.timestamp == first.timestamp + 1
        assert index.get("bucket", "key") == second

    async def test_a_write_counts_though_the_clock_is_behind_another_nodes(
        self, index: Index
    ) -> None:
        heard = record("key", 10**18, node="zzz")
        await index.merge([heard, record("elsewhere", 10**18 + 5)])
        assert index.latest() == 10**18 + 5
        written = await index.write(record("key"), now=1000)
        assert index.latest() == written.timestamp == 10**18 + 6
        assert index.get("bucket", "key") == written

    async def test_the_clock_outlives_a_dropped_tombstone(self, index: Index) -> None:
        await index.merge([tombstone("key", 10**18)])
        assert await index.drop("bucket", "key", 10**18)
        assert (await index.write(record("key"), now=1)).timestamp == 10**18 + 1

    async def test_concurrent_writes_all_have_another_time_and_number(self, index: Index) -> None:
        written = await asyncio.gather(
            *(index.write(record(f"key-{n % 3}", size=n), now=1000) for n in range(30))
        )
        assert len({each.timestamp for each in written}) == 30
        assert index.last_seq() == 30
        for n in range(3):
            newest = max(written[n::3], key=lambda each: each.timestamp)
            assert index.get("bucket", f"key-{n}") == newest

    async def test_a_reserved_time_is_nobody_elses(self, index: Index) -> None:
        await index.merge([record("heard", 10**18)])
        written = await index.write(record("key"), now=1000)
        before = await state_of(index)
        first = await index.reserve(1000)
        assert first == index.latest() == written.timestamp + 1
        both = await asyncio.gather(index.reserve(1000), index.reserve(1000))
        assert sorted(both) == [first + 1, first + 2]
        assert await index.reserve(2 * 10**18) == 2 * 10**18
        assert await state_of(index) == before
        assert (await index.write(record("key"), now=1000)).timestamp == 2 * 10**18 + 1

    async def test_a_record_of_a_reserved_time_counts_if_nothing_was_written_since(
        self, index: Index
    ) -> None:
        reserved = record("key", await index.reserve(1000), node=NODE)
        assert await index.merge([reserved]) == [True]
        late = record("key", await index.reserve(1000), node=NODE)
        newer = await index.write(record("key"), now=1000)
        assert await index.merge([late]) == [False]
        assert index.get("bucket", "key") == newer

    async def test_a_check_sees_what_is_in_force(self, index: Index) -> None:
        seen: list[Record | None] = []
        first = await index.write(record("key"), now=1, check=seen.append)
        gone = await index.write(tombstone("key"), now=2, check=seen.append)
        await index.write(record("key"), now=3, check=seen.append)
        assert seen == [None, first, gone]

    async def test_a_check_that_raises_leaves_all_as_it_was(self, index: Index) -> None:
        await index.write(record("key"), now=1)
        before = await state_of(index)

        def forbid(known: Record | None) -> None:
            raise Conflict("it is there")

        for key in ("key", "new"):
            with pytest.raises(Conflict, match="it is there"):
                await index.write(record(key, digest=OTHER), now=2, check=forbid)
        assert await state_of(index) == before
        assert index.refers(OTHER) == []
        assert (await index.write(record("key"), now=1)).timestamp == 2

    async def test_of_concurrent_writes_that_must_be_first_one_is(self, index: Index) -> None:
        def is_new(known: Record | None) -> None:
            if known is not None:
                raise Conflict("it is there")

        results = await asyncio.gather(
            *(index.write(record("key", size=n), now=n, check=is_new) for n in range(10)),
            return_exceptions=True,
        )
        assert sum(isinstance(each, Record) for each in results) == 1
        assert sum(isinstance(each, Conflict) for each in results) == 9

    async def test_of_merged_records_the_later_counts(self, index: Index) -> None:
        later = record("key", 20, size=8)
        assert await index.merge([record("key", 10)]) == [True]
        assert await index.merge([later]) == [True]
        assert await index.merge([record("key", 15), record("key", 20, node="node-A")]) == [
            False,
            False,
        ]
        assert index.get("bucket", "key") == later
        assert index.last_seq() == 2

    async def test_merging_what_is_known_changes_nothing(self, index: Index) -> None:
        records = [record(key, n) for n, key in enumerate(KEYS)]
        assert await index.merge(records) == [True] * len(KEYS)
        before = await state_of(index)
        assert await index.merge(records) == [False] * len(KEYS)
        assert await index.merge([]) == []
        assert await state_of(index) == before

    async def test_that_the_upstream_has_it_is_a_change(self, index: Index) -> None:
        plain, uploaded = record("key", 5), record("key", 5, is_upstream=True)
        assert await index.merge([plain, uploaded, plain]) == [True, True, False]
        assert await index.changes(0, 10) == [Change(2, uploaded)]

    async def test_a_name_may_come_twice_in_one_merge(self, index: Index) -> None:
        records = [record("key", 5), record("key", 9), record("key", 7), tombstone("key", 11)]
        assert await index.merge(records) == [True, True, False, True]
        assert await state_of(index) == ([Change(3, records[3])], NameCounts(0, 1), 3)
        assert index.refers(CONTENT) == []

    @pytest.mark.parametrize(
        "wrong",
        [
            record(""), record("a\0b"), record("k" * (OBJECT_KEY_BYTES + 1)), record("\ud800"),
            record("key", bucket=""), record("key", bucket="b" * 64), record("key", bucket="b\0b"),
            record("key", -1), record("key", 1 << 63), record("key", size=1 << 70),
            record("key", digest=Digest("md5", b"")), record("key", digest=Digest("sha1", b"x" * 600)),
            record("key", name="\udcff"), record("key", metadata={"a": "\udcff"}),
        ],
        ids=lambda wrong: ascii(wrong.key[:3]),
    )  # fmt: skip
    async def test_what_can_not_be_held_is_refused_whole(self, index: Index, wrong: Record) -> None:
        good = record("good")
        results = await asyncio.gather(
            index.merge([record("with it"), wrong]),
            index.write(wrong, now=5),
            index.merge([good]),
            return_exceptions=True,
        )
        assert isinstance(results[0], BadRequest)
        assert isinstance(results[1], BadRequest)
        assert results[2] == [True]
        assert [each.record for each in await index.changes(0, 10)] == [good]

    async def test_listing_is_in_the_order_of_utf_8(self, index: Index) -> None:
        await index.merge([record(key) for key in reversed(KEYS)])
        await index.merge([record("other", bucket="bucke"), record("other", bucket="bucket-2")])
        listed = await index.list_after("bucket", "", "", 1000)
        assert listed == [record(key) for key in sorted(KEYS, key=str.encode)]

    async def test_listing_resumes_after_any_key_there_or_not(self, index: Index) -> None:
        await index.merge([record(key) for key in KEYS[::2]])
        for after in ["", *KEYS, LONG + "\U0010ffff" * 200, "\U0010ffff" * 300]:
            listed = await index.list_after("bucket", "", after, 5)
            assert keys_of(listed) == [key for key in KEYS[::2] if key > after][:5]

    async def test_listing_is_of_a_prefix(self, index: Index) -> None:
        await index.merge([record(key) for key in KEYS])
        for prefix in [*KEYS, "l", LONG[:50], LONG + "b", "nothing", "k" * 2000]:
            expected = [key for key in KEYS if key.startswith(prefix)]
            for after in ["", "a/b", LONG + "a", LONG + "é", "\U0010ffff"]:
                listed = await index.list_after("bucket", prefix, after, 1000)
                assert keys_of(listed) == [key for key in expected if key > after]

    async def test_listing_leaves_tombstones_out_unless_asked(self, index: Index) -> None:
        await index.merge([tombstone(key) if n % 2 else record(key) for n, key in enumerate(KEYS)])
        assert keys_of(await index.list_after("bucket", "", "", 5)) == KEYS[:10:2]
        assert keys_of(await index.list_after("bucket", "", "", 5, deleted=True)) == KEYS[:5]

    async def test_a_scan_is_of_all_buckets_in_order(self, index: Index) -> None:
        buckets = ["b", "b-", "b.", "b0", "bb", "z"]
        for bucket in reversed(buckets):
            await index.merge(
                [record(key, bucket=bucket, deleted=key < "a") for key in reversed(KEYS)]
            )
        expected = [(bucket, key) for bucket in buckets for key in KEYS]
        scanned: list[tuple[str, str]] = []
        while page := await index.scan_after(scanned[-1] if scanned else None, 17):
            assert len(page) == min(17, len(expected) - len(scanned))
            scanned += [(each.bucket, each.key) for each in page]
        assert scanned == expected
        behind = await index.scan_after(("b-", "\U0010ffff" * 257), 1)
        assert [(each.bucket, each.key) for each in behind] == [("b.", KEYS[0])]

    async def test_the_feed_has_each_name_once_at_its_last_change(self, index: Index) -> None:
        await index.merge([record(key, 1) for key in ("a", "b", "c")])
        again = await index.write(record("b"), now=5)
        gone = await index.write(tombstone("a"), now=6)
        expected = [Change(3, record("c", 1)), Change(4, again), Change(5, gone)]
        assert await index.changes(0, 10) == expected
        assert await index.changes(3, 1) == [expected[1]]
        assert await index.changes(4, 10) == [expected[2]]
        assert await index.changes(5, 10) == []
        assert await index.changes(10**19 - 1, 10) == []
        assert index.last_seq() == 5

    async def test_a_position_got_at_first_is_good_later(self, index: Index) -> None:
        position = Position(index.epochs()[-1].name, 0)
        await index.write(record("key"), now=1)
        assert resume(index.epochs(), index.last_seq(), position) == 0
        before = Position(index.epochs()[-1].name, 1)
        await index.begin_epoch("SECOND")
        await index.write(record("key"), now=1)
        assert resume(index.epochs(), index.last_seq(), position) == 0
        assert resume(index.epochs(), index.last_seq(), before) == 1

    async def test_an_epoch_begins_after_the_last_change(self, index: Index) -> None:
        for number, name in enumerate(["A", "B", "C"]):
            await index.begin_epoch(name)
            assert index.epochs()[-1] == (name, number)
            await index.write(record("key"), now=1)
        epochs = index.epochs()
        for name in ("C", "A"):
            await index.begin_epoch(name)
        assert index.epochs() == epochs
        with pytest.raises(BadRequest):
            await index.begin_epoch("not a name")

    async def test_the_latest_epochs_are_kept(self, index: Index) -> None:
        names = [f"E{number}" for number in range(EPOCHS_COUNT + 5)]
        await asyncio.gather(*(index.begin_epoch(name) for name in names))
        assert [each.name for each in index.epochs()] == names[-EPOCHS_COUNT:]

    async def test_only_that_tombstone_is_dropped(self, index: Index) -> None:
        await index.merge([record("live", 5), *(tombstone(key, 5) for key in KEYS)])
        assert not await index.drop("bucket", "live", 5)
        assert not await index.drop("bucket", "never", 5)
        assert not await index.drop("bucket", KEYS[0], 4)
        assert await state_of(index) == (
            [Change(n, each) for n, each in enumerate(await self._all(index), 1)],
            NameCounts(1, len(KEYS)),
            len(KEYS) + 1,
        )
        for key in KEYS:
            assert await index.drop("bucket", key, 5)
            assert index.get("bucket", key) is None
        assert not await index.drop("bucket", KEYS[0], 5)
        live = Change(1, record("live", 5))
        assert await state_of(index) == ([live], NameCounts(1, 0), len(KEYS) + 1)

    async def test_a_checkpoint_is_remembered_for_each_peer(self, index: Index) -> None:
        assert index.checkpoint("peer") is None
        await index.set_checkpoint("peer", b"one")
        await index.set_checkpoint("peer-2", b"")
        await index.set_checkpoint("peer", b"two")
        assert (index.checkpoint("peer"), index.checkpoint("peer-2")) == (b"two", b"")
        assert index.last_seq() == 0

    async def test_references_follow_the_records_in_force(self, index: Index) -> None:
        first = await index.write(record("a"), now=1)
        second = await index.write(record("b", bucket="other"), now=2)
        assert sorted(keys_of(index.refers(CONTENT))) == ["a", "b"]
        third = await index.write(record("a", digest=OTHER), now=3)
        assert (index.refers(CONTENT), index.refers(OTHER)) == ([second], [third])
        uploaded = msgspec.structs.replace(third, is_upstream=True)
        await index.merge([first, uploaded, record("b", 99, bucket="other", deleted=True)])
        assert (index.refers(CONTENT), index.refers(OTHER)) == ([], [uploaded])
        await index.write(tombstone("a"), now=4)
        assert index.refers(OTHER) == []

    async def test_of_many_references_some_are_told(self, index: Index) -> None:
        many = [record(f"key-{number}") for number in range(REFERENCES_COUNT + 5)]
        await index.merge(many)
        told = index.refers(CONTENT)
        assert len(set(keys_of(told))) == REFERENCES_COUNT
        assert all(each in many for each in told)

    async def test_counts_are_of_names(self, index: Index) -> None:
        await index.merge([record("a", 1), tombstone("b", 1), record("c", 1)])
        assert index.counts() == NameCounts(2, 1)
        await index.merge([record("b", 2), tombstone("a", 2), record("c", 2)])
        assert index.counts() == NameCounts(2, 1)
        await index.write(tombstone("a"), now=5)
        assert index.counts() == NameCounts(2, 1)

    async def test_what_is_merged_in_any_parts_is_the_same(self, index: Index) -> None:
        many = [record(f"key-{number}", number) for number in range(4500)]
        assert await index.merge(many) == [True] * 4500
        assert index.counts() == NameCounts(4500, 0)
        assert await index.changes(4000, 10_000) == [
            Change(seq, many[seq - 1]) for seq in range(4001, 4501)
        ]

    async def _all(self, index: Index) -> list[Record]:
        return [each.record for each in await index.changes(0, 10_000)]
