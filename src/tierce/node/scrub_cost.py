"""What the scrub of a store in the cloud costs in a month, about. Pure.

Services have a price for each request that lists, another for each that looks or reads, and one for each
byte that leaves them. So these are counted apart.
"""

from typing import NamedTuple

from tierce.blobs.cloud_proof import Vouched
from tierce.blobs.store import Counts
from tierce.core.limits import (
    CLOUD_COMPARE_SECONDS,
    CLOUD_REREAD_SECONDS,
    DAY_SECONDS,
)

MONTH_SECONDS = 30 * DAY_SECONDS


class ScrubMonth(NamedTuple):
    """Requests of each kind in 30 days, and the bytes that are read by them."""

    list_requests: int
    look_requests: int
    read_requests: int
    read_bytes: int


class ScrubPace(NamedTuple):
    """At most a blob in ``interval_seconds``, and so many bytes a second; a rest after each pass.

    ``range_bytes`` is what one request reads of a large blob.
    """

    interval_seconds: float
    bytes_per_second: float
    rest_seconds: float
    range_bytes: int

    def seconds(self, counts: Counts) -> float:
        """How long it takes to read so many blobs."""
        return max(counts.blobs * self.interval_seconds, counts.bytes / self.bytes_per_second)


def by_reading(counts: Counts, pace: ScrubPace, listing_requests: int) -> ScrubMonth:
    """The cost if each blob is read whole, again and again. ``listing_requests`` list all once."""
    passes = MONTH_SECONDS / (pace.seconds(counts) + pace.rest_seconds)
    return _month(counts, passes, pace, listing_requests, is_looked_at=False)


def by_tags(
    counts: Counts, vouched: Vouched | None, pace: ScrubPace, listing_requests: int
) -> ScrubMonth:
    """The cost if tags are proof: those without one are read once, the others now and then.

    Before the first comparison with the listing, nothing has one. A listing without any tags is no
    proof, and each blob is read again and again.
    """
    if vouched is not None and not vouched.has_tags:
        return by_reading(counts, pace, listing_requests)
    unproved = counts if vouched is None else Counts(vouched.unproved_blobs, vouched.unproved_bytes)
    share = MONTH_SECONDS / CLOUD_REREAD_SECONDS
    reads = Counts(
        unproved.blobs + int(max(0, counts.blobs - unproved.blobs) * share),
        unproved.bytes + int(max(0, counts.bytes - unproved.bytes) * share),
    )
    seconds = pace.seconds(reads)
    possible = 1.0 if seconds <= MONTH_SECONDS else MONTH_SECONDS / seconds
    return _month(reads, possible, pace, listing_requests, is_looked_at=True)


def _month(
    counts: Counts, times: float, pace: ScrubPace, listing_requests: int, *, is_looked_at: bool
) -> ScrubMonth:
    return ScrubMonth(
        list_requests=int(MONTH_SECONDS / CLOUD_COMPARE_SECONDS) * listing_requests,
        look_requests=int(times * counts.blobs) if is_looked_at else 0,
        read_requests=int(times * (counts.blobs + counts.bytes // pace.range_bytes)),
        read_bytes=int(times * counts.bytes),
    )
