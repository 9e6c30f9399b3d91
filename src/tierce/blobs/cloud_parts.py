"""Part files of uploads that were broken off, on services that write in place (cloud/writing.py).

A process that is killed leaves them in the bucket. They have a name of their own, by which no other
object of anybody's is taken for one, and nobody writes to one for a day.
"""

import logging

from tierce.blobs.cloud_names import Layout, digest_of
from tierce.cloud.bucket import Bucket, Entry
from tierce.cloud.writing import whole_of
from tierce.core.errors import TierceError
from tierce.core.limits import CLOUD_PART_SECONDS

log = logging.getLogger(__name__)


def is_part(path: str, layout: Layout) -> bool:
    """Whether an object is the part file of a blob."""
    whole = whole_of(path)
    return whole is not None and digest_of(whole, layout) is not None


async def sweep(bucket: Bucket, entry: Entry, now: int) -> bool:
    """Delete a part file if it is old; True if it is gone. ``now``: milliseconds since 1970.

    One whose age the service does not tell stays.
    """
    if not entry.modified or entry.modified + CLOUD_PART_SECONDS > now / 1000:
        return False
    try:
        await bucket.delete(entry.path)
    except TierceError as error:
        log.warning("a part of an upload could not be deleted: %s", error)
        return False
    log.info("the part of an upload that was broken off is deleted: %s", entry.path)
    return True
