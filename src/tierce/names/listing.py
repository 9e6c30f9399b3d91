"""Listing a bucket as an object store's clients expect it: by prefix, folded at a delimiter. Pure.

The items of a listing are keys and common prefixes. With a delimiter, all keys that go on, behind the
asked prefix, with the same text up to the first delimiter are one item: that text, a common prefix,
as in S3's ListObjectsV2. Items are in the order of their UTF-8 bytes, which is that of code points,
and a page has those that are greater than ``after``. So the last item of a page, be it a key or a
common prefix, says where the next page begins.

The keys below a common prefix are not read one by one: the listing goes on behind the greatest key
that could begin so. How much is read at once follows what was found: little where there are many
common prefixes, much where there are plain keys.
"""

from typing import NamedTuple

from tierce.core.limits import FOLDED_PAGE_RECORDS, OBJECT_KEY_BYTES
from tierce.names.index import Index
from tierce.names.record import Record

_GREATEST = "\U0010ffff"
_GREATEST_BYTES = len(_GREATEST.encode())


class Listing(NamedTuple):
    """A page of a bucket's names: records in the order of their keys, and common prefixes in theirs.

    ``prefixes`` are up to and including their delimiter. ``next_after`` is what to pass as ``after``
    for the next page, "" at the end. It is the last item of the page, and may be a common prefix.
    """

    records: list[Record]
    prefixes: list[str]
    next_after: str


async def list_page(
    index: Index, bucket: str, *, prefix: str, delimiter: str, after: str, limit: int
) -> Listing:
    """The first ``limit`` items, records and common prefixes, that are greater than ``after``.

    No tombstones, and no common prefix of tombstones only. A common prefix that ``after`` equals or
    lies inside of is not given. A ``delimiter`` of "" folds nothing. A ``limit`` of 0 gives an empty
    page that calls itself the end, as S3 does. Raises Corrupt.
    """
    if limit <= 0:
        return Listing([], [], "")
    records: list[Record] = []
    prefixes: list[str] = []
    common = _common_prefix(after, prefix, delimiter)
    start, last_item = (after if common is None else _behind(common)), ""
    step = FOLDED_PAGE_RECORDS if delimiter else limit + 1
    while True:
        # One more than there is room for: only then is it known that another page follows.
        ask = min(step, limit + 1 - len(records) - len(prefixes))
        page = await index.list_after(bucket, prefix, start, ask)
        for record in page:
            folded = _common_prefix(record.key, prefix, delimiter)
            if folded is not None and folded == common:
                continue
            if len(records) + len(prefixes) == limit:
                return Listing(records, prefixes, last_item)
            common = folded
            if common is None:
                records.append(record)
                last_item = record.key
            else:
                prefixes.append(common)
                last_item = common
        if len(page) < ask:
            return Listing(records, prefixes, "")
        if common is None:
            start, step = page[-1].key, step * 4
        else:
            start, step = _behind(common), max(FOLDED_PAGE_RECORDS, step // 4)


def _common_prefix(key: str, prefix: str, delimiter: str) -> str | None:
    """The common prefix that a key is folded into; None if it stands for itself."""
    if not delimiter or not key.startswith(prefix):
        return None
    at = key.find(delimiter, len(prefix))
    return None if at < 0 else key[: at + len(delimiter)]


def _behind(common: str) -> str:
    """Greater than every key that begins with ``common``, smaller than all other keys behind it.

    It is longer than a key may be, so it equals none.
    """
    left = max(0, OBJECT_KEY_BYTES - len(common.encode()))
    return common + _GREATEST * (left // _GREATEST_BYTES + 1)
