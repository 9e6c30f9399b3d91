"""The real Cask nodes that this node knows, and what it decides about them (wire sheet, sections 4, 5).

Cask's membership is a table in every node: who was added by a join, when it last sent a heartbeat,
whether it takes files. There is no clock and no I/O here: each call says what time it is, in seconds
of one monotonic clock. Other Tierce nodes never stand in this table, as gossip tells of them; they
only appear in heartbeats, so that Cask nodes get to know them.
"""

import json
from datetime import datetime
from typing import Any

import msgspec

from tierce.cluster.member import Member, View
from tierce.core import kinds
from tierce.core.errors import BadRequest

NO_URL = "no url specified"
NOT_RETRIEVED = "error retrieving config"
NOT_PARSED = "error parsing json"
MYSELF = "I can't join myself, silly!"
KNOWN = "already have a node with that UUID in the cluster"

# Cask's own numbers: a pause between 0 and this is added to each interval, and a node that was
# silent for so many intervals is dropped.
JITTER_SECONDS = 4.0
REAPED_AFTER_INTERVALS = 3
# More than any cluster of Cask nodes, which all send to all, could have.
NEIGHBORS_LIMIT = 256


class Node(msgspec.Struct, frozen=True):
    """A node as nodes tell each other of it. What is null or missing in JSON is empty."""

    uuid: str | None = ""
    base_url: str | None = ""
    writeable: bool | None = False
    last_seen: datetime | None = None
    last_failed: datetime | None = None

    def as_member(self) -> Member:
        """The same as a member of the cluster. Raises BadRequest for an id or a URL that is none."""
        node_id = kinds.node_id.parse(self.uuid or "")
        if not node_id:
            raise BadRequest("the node has no UUID", hint="Set CASK_UUID on it.")
        return Member(
            node_id,
            cask=kinds.base_url.parse(self.base_url or ""),
            writable=bool(self.writeable),
            dialect="cask",
        )


class Heartbeat(msgspec.Struct, frozen=True):
    """What one node tells another now and then: itself, and all the nodes that it knows."""

    uuid: str | None = ""
    base_url: str | None = ""
    writeable: bool | None = False
    secret: str | None = ""
    neighbors: list[Node] | None = None

    @property
    def sender(self) -> Node:
        """Who sent it."""
        return Node(self.uuid, self.base_url, self.writeable)


class _Neighbor:
    """A row of the table."""

    def __init__(self, member: Member, now: float) -> None:
        self.member = member
        self.last_seen = now
        self.has_failed = False


class Neighbors:
    """The table. ``interval_seconds`` lies between two heartbeats, of others as of this node."""

    def __init__(self, secret: str, interval_seconds: float) -> None:
        self._secret = secret
        self.interval_seconds = interval_seconds
        self._rows: dict[str, _Neighbor] = {}

    def members(self) -> list[Member]:
        """All Cask nodes known here, by id; those that failed to take a file are not writable."""
        rows = (self._rows[node_id] for node_id in sorted(self._rows))
        return [
            msgspec.structs.replace(row.member, writable=row.member.writable and not row.has_failed)
            for row in rows
        ]

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._rows

    def pause_seconds(self, chance: float) -> float:
        """How long to wait for the next heartbeat; ``chance`` is random, from 0 to 1."""
        return self.interval_seconds + chance * min(JITTER_SECONDS, self.interval_seconds)

    def why_not(self, node_id: str, view: View) -> str | None:
        """Why a node is not added, in Cask's words, or None if it is to be."""
        if node_id == view.me:
            return MYSELF
        if node_id in self._rows or _is_tierce(node_id, view):
            return KNOWN
        return None

    def add(self, member: Member, now: float) -> list[Member]:
        """Add a node that was not known, and say which others must hear of it.

        Raises BadRequest if there are too many.
        """
        if len(self._rows) >= NEIGHBORS_LIMIT:
            raise BadRequest(f"there are {NEIGHBORS_LIMIT} Cask nodes already")
        others = self.members()
        self._rows[member.node_id] = _Neighbor(member, now)
        return others

    def drop(self, node_id: str) -> None:
        """Forget a node, known or not."""
        self._rows.pop(node_id, None)

    def heard(self, heartbeat: Heartbeat, view: View, now: float) -> list[str]:
        """Take a heartbeat, and return the base URLs of nodes to be joined, as they are new here.

        An unknown sender is not added, as in Cask: a node is known by its join. What a known one
        says of itself counts from now on. Raises BadRequest for a sender that makes no sense.
        """
        sender = heartbeat.sender.as_member()
        row = self._rows.get(sender.node_id)
        if row is not None:
            row.member = sender
            row.last_seen = now
            row.has_failed = False
        known = view.by_id
        found = []
        for node in heartbeat.neighbors or []:
            try:
                member = node.as_member()
            except BadRequest:
                continue
            if member.node_id not in known and member.node_id not in self._rows:
                found.append(member.cask)
        return found

    def copied(self, node_id: str, *, worked: bool, now: float) -> None:
        """A file was sent to a node: that it took it is a sign of life.

        One that did not is given no more until its next heartbeat.
        """
        row = self._rows.get(node_id)
        if row is None:
            return
        if worked:
            row.last_seen = now
        else:
            row.has_failed = True

    def reap(self, view: View, now: float) -> list[str]:
        """Drop the nodes that are silent for too long, and those in whose place a Tierce node is now."""
        limit = now - REAPED_AFTER_INTERVALS * self.interval_seconds
        gone = [
            node_id
            for node_id in sorted(self._rows)
            if self._rows[node_id].last_seen < limit or _is_tierce(node_id, view)
        ]
        for node_id in gone:
            del self._rows[node_id]
        return gone

    def heartbeat(self, view: View) -> bytes:
        """What this node tells its neighbors. All nodes with a Cask door are Cask nodes in it."""
        me = view.by_id[view.me]
        doors = [
            each
            for each in view.members
            if each.dialect == "tierce" and each.cask and each.is_up and each.node_id != view.me
        ]
        listed = sorted([*self.members(), *doors], key=lambda each: each.node_id)
        content = _shown(me) | {
            "secret": self._secret,
            "neighbors": [_shown(each) for each in listed],
        }
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def added(node_id: str) -> str:
    """The answer to a join that worked."""
    return f"Added node [{node_id}]"


def _is_tierce(node_id: str, view: View) -> bool:
    """Whether it is a Tierce node of the cluster, and not down, when its place may have changed."""
    member = view.find(node_id)
    return member is not None and member.dialect == "tierce" and member.is_up


def _shown(member: Member) -> dict[str, Any]:
    takes_files = member.writable and not member.draining
    return {"uuid": member.node_id, "base_url": member.cask, "writeable": takes_files}
