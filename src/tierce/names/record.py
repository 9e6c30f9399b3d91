"""A record: what is known of one named object, and the rule by which two records of a name merge.

Every write gets a timestamp from a hybrid logical clock in one number: nanoseconds since 1970, but
always more than any that the node has seen (:func:`stamp`). So a later write on a node counts as later
even if its clock is behind that of another node, or was set back.

Of two records of a name, the one with the greater (timestamp, node) counts. Where both are equal it
is the same write, of which one side may know more: that the upstream has it. So merging is
commutative, associative and idempotent, and nodes that have seen the same records agree.
"""

import msgspec

from tierce.core.codec import encode
from tierce.core.digest import Digest

NEAR_CACHE_BUCKET = "objstore"
"""Where the near-cache's objects are, those with a level."""
NO_LEVEL = -1
"""The bytes are placed by the ring, on ``replication`` nodes."""
LOCAL = 0
"""The bytes are on the node that took them."""
UPSTREAM = 1
"""The bytes are on the node that took them, and in the upstream."""
FULL = 2
"""The bytes are on every node, and in the upstream."""
LEVELS = (LOCAL, UPSTREAM, FULL)


class Record(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One version of a named object, or of its absence (a tombstone: ``deleted``, without digest).

    ``timestamp`` and ``modified`` are in nanoseconds since 1970, ``size`` in bytes. ``node`` is the id
    of the node that took the write; with a level of 0 or 1 it is the one that has the bytes.
    ``is_upstream``: the upstream has this very content under the record's key; in a tombstone, it may
    have some content there still, if only from before the level was lowered.
    ``modified`` is when the content was written, 0 if that is ``timestamp``.
    """

    bucket: str
    key: str
    timestamp: int = 0
    node: str = ""
    digest: Digest | None = None
    size: int = 0
    name: str = ""
    content_type: str = ""
    metadata: dict[str, str] = {}
    level: int = NO_LEVEL
    deleted: bool = False
    is_upstream: bool = False
    modified: int = 0

    @property
    def rank(self) -> tuple[int, str]:
        """Of two records of a name, the one with the greater rank counts."""
        return self.timestamp, self.node

    @property
    def content(self) -> Digest:
        """The digest of what is no tombstone."""
        assert self.digest is not None, "a tombstone has no content"
        return self.digest

    @property
    def modified_at(self) -> int:
        """When the content was written, in nanoseconds since 1970."""
        return self.modified or self.timestamp

    @property
    def etag(self) -> str:
        """The strong entity tag of the content, quoted."""
        return f'"{self.digest}"'


def merge(known: Record | None, heard: Record) -> Record:
    """The record that counts. ``known`` itself if nothing in ``heard`` is new."""
    if known is None or known == heard:
        return heard if known is None else known
    if known.rank != heard.rank:
        return known if known.rank > heard.rank else heard
    known_body, heard_body = _body(known), _body(heard)
    if known_body != heard_body:  # no node writes such two; but all must choose the same of them
        return known if known_body > heard_body else heard
    return known if known.is_upstream else heard


def stamp(now: int, last: int) -> int:
    """The timestamp of a write at ``now``, where ``last`` is the latest that was seen. Nanoseconds."""
    return max(now, last + 1)


def _body(record: Record) -> bytes:
    """All that a write decided."""
    return encode(msgspec.structs.replace(record, is_upstream=False))
