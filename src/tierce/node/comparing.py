"""Comparing this node's records with a peer's, range by range, and fetching what this node lacks.

This node cuts its own names into ranges of RANGE_RECORDS; the first and the last are open, so that
names are seen that only the peer has. A few ranges go in each message, as digests, and where one
differs the peer sends what is newer there. It mends this node only: the peer does the same in its
turn. Neither the messages nor the memory needed grow with the number of records.
"""

from collections.abc import Awaitable, Callable, Sequence

from tierce.cluster import sync
from tierce.cluster.member import Member
from tierce.cluster.sync import Bound, Cut
from tierce.core.limits import RANGE_RECORDS, RANGES_IN_MESSAGE
from tierce.names.index import Index
from tierce.names.record import Record
from tierce.node.names_peers import NamesPeers
from tierce.node.pacing import Pace

Take = Callable[[Sequence[Record]], Awaitable[int]]
"""Merges what a peer sent, durably, and returns how many records were news."""


async def compare(
    index: Index, peers: NamesPeers, member: Member, take: Take, *, horizon: int, pace: Pace
) -> int:
    """Compare all records with a member's; how many were news. Raises Unavailable.

    When it returns, this node has all that the member had when it began, or newer, but for tombstones
    from before ``horizon`` (nanoseconds since 1970) of names that are not known. ``pace`` is in
    records of this node.
    """
    news = 0
    lower: Bound | None = None
    is_last = False
    while not is_last:
        cuts: list[Cut] = []
        while len(cuts) < RANGES_IN_MESSAGE and not is_last:
            page = await index.scan_after(lower, RANGE_RECORDS)
            is_last = len(page) < RANGE_RECORDS
            cuts.append(sync.cut(lower, page, is_last=is_last))
            lower = cuts[-1].upper
            await pace.spend(len(page))
        uppers = [each.upper for each in cuts]
        told = await peers.ranges(member, cuts[0].lower, uppers, horizon)
        for each in sync.differing(cuts, told, horizon):
            news += await _fetch(peers, member, take, each, horizon)
    return news


async def _fetch(peers: NamesPeers, member: Member, take: Take, cut: Cut, horizon: int) -> int:
    """Get what a member has newer in a range, a bounded part at a time."""
    news = 0
    lower = cut.lower
    while True:
        known = [each for each in cut.marks if lower is None or each.name > lower]
        answer = await peers.range(member, lower, cut.upper, known, horizon)
        news += await take(answer.records)
        if answer.looked_to is None:
            return news
        lower = answer.looked_to
