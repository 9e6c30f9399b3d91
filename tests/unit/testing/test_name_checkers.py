"""Each checker of named objects is content with what is right, and finds what was planted."""

from collections.abc import Mapping

import pytest

from tierce.cluster.member import Member, View
from tierce.cluster.placement import Placement
from tierce.core.digest import Digest
from tierce.names.cached import Look, Standing
from tierce.names.record import FULL, LOCAL, NEAR_CACHE_BUCKET, NO_LEVEL, UPSTREAM, Record
from tierce.testing.checkers import Violation
from tierce.testing.name_checkers import History, Name, Write
from tierce.testing.name_converged import Situation, unsettled
from tierce.testing.name_kept import CacheBound, Held, Kept

DATA = b"some bytes"
BLOB = Digest.of(DATA)
OTHER = b"other bytes"
NODES = ["a", "b", "c", "d"]
RING: Name = ("ring", "key")
CACHE: Name = (NEAR_CACHE_BUCKET, "id")
EMPTY = Held({}, frozenset(), frozenset())


def record(
    name: Name = RING,
    timestamp: int = 1,
    node: str = "a",
    *,
    digest: Digest | None = BLOB,
    level: int = NO_LEVEL,
    is_upstream: bool = False,
) -> Record:
    return Record(
        bucket=name[0],
        key=name[1],
        timestamp=timestamp,
        node=node,
        digest=digest,
        deleted=digest is None,
        level=level,
        is_upstream=is_upstream,
    )


def put(history: History, name: Name = RING, node: str = "a", *, level: int = NO_LEVEL) -> Write:
    return history.begin(name, "client", node, data=DATA, digest=BLOB, level=level)


def acknowledged(history: History, answer: Record) -> Write:
    name = answer.bucket, answer.key
    write = history.begin(
        name,
        "client",
        answer.node,
        data=DATA,
        digest=answer.digest,
        level=answer.level,
        deleted=answer.deleted,
    )
    history.acknowledge(write, answer)
    history.end(write)
    return write


class TestHistory:
    def test_an_acknowledged_write_is_lost_to_a_later_one_only(self) -> None:
        history = History()
        acknowledged(history, record(timestamp=5))
        history.check_lasting({RING: record(timestamp=5)})
        history.check_lasting({RING: record(timestamp=6, node="b")})
        for found in ({}, {RING: record(timestamp=4, node="b")}):
            with pytest.raises(Violation, match="acknowledged write"):
                history.check_lasting(found)

    def test_what_was_deleted_is_not_back(self) -> None:
        history = History()
        acknowledged(history, record(timestamp=5))
        acknowledged(history, record(timestamp=6, digest=None))
        history.check_lasting({RING: record(timestamp=6, digest=None)})
        history.check_lasting({RING: record(timestamp=7)})
        with pytest.raises(Violation, match="acknowledged delete"):
            history.check_lasting({RING: record(timestamp=5)})

    def test_a_tombstone_may_be_forgotten_and_a_write_may_not(self) -> None:
        history = History(forgets=True)
        acknowledged(history, record(timestamp=5))
        with pytest.raises(Violation):
            history.check_lasting({})
        acknowledged(history, record(timestamp=6, digest=None))
        history.check_lasting({})
        with pytest.raises(Violation, match="acknowledged delete"):
            history.check_lasting({RING: record(timestamp=5)})

    def test_only_what_a_client_sent_may_count(self) -> None:
        history = History()
        put(history)
        history.check_sent({"a": {RING: record()}})
        for wrong in (record(node="b"), record(digest=None), record(digest=Digest.of(OTHER))):
            with pytest.raises(Violation, match="nobody sent"):
                history.check_sent({"a": {RING: wrong}})

    def test_an_answered_rank_has_one_content(self) -> None:
        history = History()
        acknowledged(history, record(timestamp=5))
        history.begin(RING, "other", "a", data=OTHER, digest=Digest.of(OTHER))
        history.check_sent({"a": {RING: record(timestamp=5)}})
        with pytest.raises(Violation, match="answered was"):
            history.check_sent({"a": {RING: record(timestamp=5, digest=Digest.of(OTHER))}})

    def test_a_later_write_of_a_client_through_a_node_has_a_greater_timestamp(self) -> None:
        history = History()
        acknowledged(history, record(timestamp=5))
        acknowledged(history, record(CACHE, timestamp=4, node="b", level=LOCAL))
        with pytest.raises(Violation, match="after a write at 5"):
            acknowledged(history, record(CACHE, timestamp=5, level=LOCAL))

    def test_a_node_that_lost_its_disk_knows_nothing_of_its_answers(self) -> None:
        history = History()
        acknowledged(history, record(timestamp=5))
        history.forget_sessions("a")
        acknowledged(history, record(timestamp=5, digest=None))

    def test_what_is_read_was_put_under_that_name(self) -> None:
        history = History()
        put(history)
        history.read(RING, DATA)
        history.read(RING, DATA[:3], whole=False)
        for name, data in ((RING, OTHER), (CACHE, DATA), (RING, DATA[:3])):
            with pytest.raises(Violation, match="nobody put there"):
                history.read(name, data)

    def test_an_answer_for_another_name_is_found(self) -> None:
        history = History()
        with pytest.raises(Violation):
            history.acknowledge(put(history), record(CACHE))

    def test_the_upstream_may_be_overwritten_only_where_writes_met(self) -> None:
        history = History()
        first = record(CACHE, 5, level=UPSTREAM, is_upstream=True)
        acknowledged(history, first)
        second = record(CACHE, 6, level=UPSTREAM, digest=Digest.of(OTHER), is_upstream=True)
        acknowledged(history, second)
        assert not history.may_be_overwritten(second)
        put(history, CACHE, "b", level=LOCAL)
        assert not history.may_be_overwritten(second)
        put(history, CACHE, "b", level=UPSTREAM)
        assert history.may_be_overwritten(second)


class TestKept:
    def kept(self, answer: Record, *nodes: str) -> tuple[Kept, History]:
        history = History()
        kept = Kept(2, history)
        write = acknowledged(history, answer)
        if answer.level == NO_LEVEL:
            kept.acknowledge(write, indexes(answer, *nodes), disks(*nodes), 0)
        return kept, history

    def test_a_record_or_content_on_too_few_disks_must_not_be_acknowledged(self) -> None:
        self.kept(record(), "a", "b")
        with pytest.raises(Violation, match="1 records"):
            self.kept(record(), "a")
        history = History()
        write = acknowledged(history, record())
        with pytest.raises(Violation, match="1 contents"):
            Kept(2, history).acknowledge(write, indexes(record(), "a", "b"), disks("a"), 0)

    def test_an_acknowledged_record_is_somewhere_or_a_later_one(self) -> None:
        kept, _ = self.kept(record(timestamp=5), "a", "b")
        kept.check(indexes(record(timestamp=5), "a"), disks("a"))
        kept.check(indexes(record(timestamp=6), "a"), disks("a"))
        for found in (indexes(record(timestamp=4), "a", "b"), indexes(record())):
            with pytest.raises(Violation, match="on no disk"):
                kept.check(found, disks("a", "b"))

    def test_the_content_of_what_counts_is_somewhere(self) -> None:
        kept, _ = self.kept(record(), "a", "b")
        with pytest.raises(Violation, match="is lost"):
            kept.check(indexes(record(), "a", "b"), disks())

    def test_only_fewer_copies_than_asked_for_may_be_destroyed(self) -> None:
        kept, _ = self.kept(record(), "a", "b")
        before = Held({RING: record()}, frozenset([BLOB]), frozenset())
        found = indexes(record(), "a", "b")
        assert kept.may_lose("a", before, EMPTY, found)
        kept.lose("a", before, EMPTY, found)
        assert not kept.may_lose("b", before, EMPTY, indexes(record(), "b"))
        kept.check(indexes(record(), "a", "b"), disks("a", "b"))
        assert kept.may_lose("b", before, EMPTY, found)

    def test_a_disk_set_back_loses_what_protected_a_blob_too(self) -> None:
        kept, _ = self.kept(record(), "a", "b")
        before = Held({RING: record()}, frozenset([BLOB]), frozenset())
        older = Held({}, frozenset([BLOB]), frozenset())
        kept.lose("a", before, older, indexes(record(), "a", "b"))
        assert not kept.may_lose("b", before, older, indexes(record(), "b"))

    def test_the_node_that_took_an_object_has_it_until_its_copy_is_destroyed(self) -> None:
        local = record(CACHE, level=LOCAL)
        kept, _ = self.kept(local, "a")
        kept.check(indexes(local, "a", "b"), disks("a"))
        with pytest.raises(Violation, match="has no more"):
            kept.check(indexes(local, "a", "b"), disks("b"))
        before = Held({CACHE: local}, frozenset([BLOB]), frozenset())
        kept.lose("a", before, EMPTY, indexes(local, "a", "b"))
        kept.check(indexes(local, "a", "b"), disks())

    def test_a_write_that_one_disk_had_heard_of_is_excused_with_it(self) -> None:
        local = record(CACHE, timestamp=5, level=LOCAL)
        before = Held({CACHE: local}, frozenset([BLOB]), frozenset())
        kept, history = self.kept(local, "a")
        assert kept.lose("a", before, EMPTY, indexes(local, "a")) == 1
        history.check_lasting({})
        kept, history = self.kept(local, "a")
        assert kept.lose("a", before, EMPTY, indexes(local, "a", "b")) == 0
        with pytest.raises(Violation):
            history.check_lasting({})


def indexes(answer: Record, *nodes: str) -> dict[str, dict[Name, Record]]:
    name = answer.bucket, answer.key
    return {each: {name: answer} if each in nodes else {} for each in NODES}


def disks(*holding: str) -> dict[str, dict[Digest, bytes]]:
    return {each: {BLOB: DATA} if each in holding else {} for each in NODES}


class TestUnsettled:
    placement = Placement(
        View.of("a", [Member(name, private=f"{name}:1", replication=2) for name in NODES])
    )

    def found(
        self,
        answer: Record,
        holding: list[str],
        *,
        known_on: list[str] = NODES,
        managed: bool = True,
        lost: tuple[str, ...] = (),
        upstream: Mapping[str, Digest] | None = None,
    ) -> list[str]:
        history = History()
        acknowledged(history, answer)
        return unsettled(
            Situation(
                placement=self.placement,
                indexes=indexes(answer, *known_on),
                disks=disks(*holding),
                managed={each: {BLOB} if managed else set() for each in NODES},
                lost=[(each, BLOB) for each in lost],
                upstream={} if upstream is None else upstream,
                history=history,
            )
        )

    @property
    def owners(self) -> list[str]:
        return [each.node_id for each in self.placement.owners(BLOB)]

    def test_all_nodes_have_the_same_records(self) -> None:
        assert not self.found(record(), self.owners)
        assert self.found(record(), self.owners, known_on=["a", "b", "c"])

    def test_the_owners_have_the_content_of_an_object_of_the_ring(self) -> None:
        assert self.found(record(), self.owners[:1])
        assert self.found(record(), [])
        assert self.found(record(), NODES)

    def test_a_blob_without_a_name_goes_unless_it_was_put_as_such(self) -> None:
        deleted = record(digest=None)
        assert not self.found(deleted, [])
        assert self.found(deleted, self.owners)
        assert not self.found(deleted, self.owners, managed=False)

    def test_an_object_of_level_0_is_on_its_node(self) -> None:
        local = record(CACHE, level=LOCAL)
        assert not self.found(local, ["a"])
        assert self.found(local, ["b"])
        assert not self.found(local, [], lost=("a",))

    def test_an_object_of_level_2_is_on_every_node_and_in_the_upstream(self) -> None:
        full = record(CACHE, level=FULL, is_upstream=True)
        assert not self.found(full, NODES, upstream={"id": BLOB})
        assert self.found(full, ["a", "b", "c"], upstream={"id": BLOB})
        assert self.found(full, NODES)
        assert self.found(full, NODES, upstream={"id": Digest.of(OTHER)})

    def test_what_is_queued_gets_into_the_upstream(self) -> None:
        assert self.found(record(CACHE, level=UPSTREAM), ["a"])


class TestCacheBound:
    def test_the_sum_of_what_is_cached_is_held_against_the_limit(self) -> None:
        history = History()
        bound = CacheBound(100, history)
        cached = Look(Standing.CACHED, 60)
        other = Digest.of(OTHER)
        assert bound.check("a", {BLOB: cached, other: Look(Standing.OTHER, 60)}) == 60
        with pytest.raises(Violation, match="120 bytes cached"):
            bound.check("b", {BLOB: cached, other: cached})

    def test_what_was_put_in_another_way_too_is_left_out(self) -> None:
        history = History()
        put(history, CACHE, level=UPSTREAM)
        bound = CacheBound(100, history)
        with pytest.raises(Violation):
            bound.check("a", {BLOB: Look(Standing.CACHED, 120)})
        put(history)
        assert not bound.check("a", {BLOB: Look(Standing.CACHED, 120)})

    def test_what_may_stay_is_left_out_for_a_while(self) -> None:
        bound = CacheBound(100, History())
        standings = {BLOB: Look(Standing.CACHED, 120)}
        assert not bound.check("a", standings, {BLOB})
        assert bound.sum_of(standings) == 120
