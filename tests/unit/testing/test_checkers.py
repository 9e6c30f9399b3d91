"""Each checker is content with what is right, and finds what was planted."""

import pytest

from tierce.cluster.member import Member, State, View
from tierce.cluster.placement import Placement
from tierce.core.digest import Digest
from tierce.testing.checkers import Bounded, Converged, Durable, NeverWrong, Violation
from tierce.testing.network import Sent, Tally

DATA = b"some bytes"
BLOB = Digest.of(DATA)
NODES = ["a", "b", "c", "d"]


def view(me: str = "a", **changed: object) -> View:
    members = [Member(name, private=f"{name}:1", replication=2) for name in NODES]
    if changed:
        fields = {name: getattr(members[3], name) for name in Member.__struct_fields__}
        members[3] = Member(**{**fields, **changed})
    return View.of(me, members)


def disks(*holding: str, bad: str = "") -> dict[str, dict[Digest, bytes]]:
    found: dict[str, dict[Digest, bytes]] = {
        name: {BLOB: DATA} if name in holding else {} for name in NODES
    }
    if bad:
        found[bad] = {BLOB: b"other bytes"}
    return found


def owners() -> list[str]:
    return [each.node_id for each in Placement(view()).owners(BLOB)]


class TestDurable:
    def test_a_blob_on_too_few_disks_must_not_be_acknowledged(self) -> None:
        Durable(2).acknowledge(BLOB, disks("a", "b"))
        Durable(2).acknowledge(BLOB, disks("a"), destroyed_meanwhile=1)
        with pytest.raises(Violation):
            Durable(2).acknowledge(BLOB, disks("a"))
        with pytest.raises(Violation):
            Durable(2).acknowledge(BLOB, disks("a", bad="b"))

    def test_a_blob_that_is_gone_without_reason_is_lost(self) -> None:
        durable = Durable(2)
        durable.acknowledge(BLOB, disks("a", "b"))
        durable.check(disks("a"))
        with pytest.raises(Violation):
            durable.check(disks())

    def test_one_destroyed_copy_of_two_excuses_nothing(self) -> None:
        durable = Durable(2)
        durable.acknowledge(BLOB, disks("a", "b"))
        assert durable.may_destroy([BLOB])
        durable.destroy([BLOB])
        assert not durable.may_destroy([BLOB])
        with pytest.raises(Violation):
            durable.check(disks(bad="b"))

    def test_two_destroyed_copies_of_two_excuse_the_loss(self) -> None:
        durable = Durable(2)
        durable.acknowledge(BLOB, disks("a", "b"))
        durable.destroy([BLOB])
        durable.destroy([BLOB])
        durable.check(disks())

    def test_what_is_to_be_deleted_may_vanish(self) -> None:
        durable = Durable(2)
        durable.acknowledge(BLOB, disks("a", "b"))
        durable.release(BLOB)
        durable.check(disks())
        durable.acknowledge(BLOB, disks())
        assert not durable.acknowledged

    def test_a_healed_blob_has_its_full_promise_again(self) -> None:
        durable = Durable(2)
        durable.acknowledge(BLOB, disks("a", "b"))
        durable.destroy([BLOB])
        durable.check(disks("a", "c"))
        assert durable.may_destroy([BLOB])
        durable.destroy([BLOB])
        with pytest.raises(Violation):
            durable.check(disks())


class TestNeverWrong:
    def test_the_bytes_that_were_put_are_right(self) -> None:
        checker = NeverWrong()
        checker.put(BLOB, DATA)
        checker.stored(DATA, BLOB)
        checker.read(BLOB, DATA)
        checker.read(BLOB, DATA[:4], whole=False)

    @pytest.mark.parametrize("data", [b"", DATA[:-1], DATA + b"x", b"other bytes"])
    def test_any_other_bytes_are_wrong(self, data: bytes) -> None:
        checker = NeverWrong()
        checker.put(BLOB, DATA)
        with pytest.raises(Violation):
            checker.read(BLOB, data)

    def test_a_part_with_wrong_bytes_is_wrong(self) -> None:
        checker = NeverWrong()
        checker.put(BLOB, DATA)
        with pytest.raises(Violation):
            checker.read(BLOB, b"same", whole=False)

    def test_the_last_byte_must_not_come_before_a_failure(self) -> None:
        checker = NeverWrong()
        checker.put(BLOB, DATA)
        with pytest.raises(Violation):
            checker.read(BLOB, DATA, whole=False)

    def test_what_nobody_put_can_not_be_read(self) -> None:
        with pytest.raises(Violation):
            NeverWrong().read(BLOB, DATA)

    def test_a_wrong_name_in_an_answer_is_wrong(self) -> None:
        with pytest.raises(Violation):
            NeverWrong().stored(DATA, Digest.of(b"x"))


class TestConverged:
    def test_every_blob_on_its_owners_and_one_view_is_right(self) -> None:
        Converged(view()).check({name: view(name) for name in NODES}, disks(*owners()))

    def test_a_missing_copy_is_found(self) -> None:
        with pytest.raises(Violation, match="missing on"):
            Converged(view()).check({}, disks(owners()[0]))

    def test_a_surplus_copy_is_found(self) -> None:
        with pytest.raises(Violation, match="do not own it"):
            Converged(view()).check({}, disks(*NODES))

    def test_a_bad_copy_is_found(self) -> None:
        spare = next(name for name in NODES if name not in owners())
        with pytest.raises(Violation, match="bad on"):
            Converged(view()).check({}, disks(*owners(), bad=spare))

    def test_a_drained_node_that_is_not_empty_is_found(self) -> None:
        truth = view(draining=True)
        able = [each.node_id for each in Placement(truth).owners(BLOB)]
        Converged(truth).check({}, disks(*able))
        with pytest.raises(Violation):
            Converged(truth).check({}, disks(*able[:1], "d"))

    @pytest.mark.parametrize(
        "wrong",
        [{"state": State.DOWN}, {"writable": False}, {"private": "d:2"}, {"state": State.LEFT}],
    )
    def test_a_node_that_sees_it_otherwise_is_found(self, wrong: dict[str, object]) -> None:
        with pytest.raises(Violation, match="b knows d"):
            Converged(view()).check({"a": view(), "b": view("a", **wrong)}, disks(*owners()))

    def test_a_member_that_is_none_is_found(self) -> None:
        stranger = View.of("a", [*view().members, Member("z")])
        with pytest.raises(Violation, match="a knows z"):
            Converged(view()).check({"a": stranger}, disks(*owners()))


class TestBounded:
    def sent(self, per_second: int, size: int = 100) -> dict[Sent, Tally]:
        return {
            Sent(second, "a", "/gossip 0123"): Tally(per_second, per_second * size)
            for second in range(100)
        }

    def test_what_was_planned_is_right(self) -> None:
        Bounded(messages=5, bytes=500).check(self.sent(5), ["/gossip"], 0, 100)

    def test_too_many_messages_are_found(self) -> None:
        with pytest.raises(Violation):
            Bounded(messages=5, bytes=10**9).check(self.sent(6), ["/gossip"], 0, 100)

    def test_too_many_bytes_are_found(self) -> None:
        with pytest.raises(Violation):
            Bounded(messages=100, bytes=500).check(self.sent(5, size=101), ["/gossip"], 0, 100)

    def test_only_the_given_paths_and_seconds_count(self) -> None:
        sent = {
            **self.sent(1),
            Sent(5, "a", "/blobs"): Tally(10**6, 1),
            Sent(200, "a", "/gossip"): Tally(10**6, 1),
        }
        Bounded(messages=5, bytes=500).check(sent, ["/gossip"], 0, 100)
