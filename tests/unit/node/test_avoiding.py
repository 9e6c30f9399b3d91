"""Who failed a moment ago is asked last, for a while."""

import asyncio

from tests.unit.node.fakes import ids, members

from tierce.core.limits import PEER_AVOIDED_SECONDS
from tierce.node.avoiding import Avoiding
from tierce.testing import virtual_time

A, B, C = members(3)


def test_without_failures_the_order_stays() -> None:
    async def main() -> None:
        assert ids(Avoiding().sorted([B, A, C])) == ["b", "a", "c"]

    virtual_time.run(main())


def test_who_failed_comes_last_and_the_others_keep_their_order() -> None:
    async def main() -> None:
        avoiding = Avoiding()
        avoiding.failed(B)
        assert ids(avoiding.sorted([B, C, A])) == ["c", "a", "b"]

    virtual_time.run(main())


def test_nobody_is_left_out() -> None:
    async def main() -> None:
        avoiding = Avoiding()
        for each in (A, B, C):
            avoiding.failed(each)
        assert ids(avoiding.sorted([B, C, A])) == ["b", "c", "a"]

    virtual_time.run(main())


def test_a_failure_is_forgotten_after_a_while() -> None:
    async def main() -> None:
        avoiding = Avoiding()
        avoiding.failed(A)
        await asyncio.sleep(PEER_AVOIDED_SECONDS - 0.1)
        assert ids(avoiding.sorted([A, B])) == ["b", "a"]
        await asyncio.sleep(0.1)
        assert ids(avoiding.sorted([A, B])) == ["a", "b"]

    virtual_time.run(main())


def test_a_failure_is_forgotten_when_the_member_answers() -> None:
    async def main() -> None:
        avoiding = Avoiding()
        avoiding.failed(A)
        avoiding.answered(A)
        avoiding.answered(B)
        assert ids(avoiding.sorted([A, B])) == ["a", "b"]

    virtual_time.run(main())
