"""What nodes say to each other about membership. Questions go to the path /gossip, answers come back.

Each message carries its sender's own record, so direct contact always tells the truth about the two,
up to GOSSIP_UPDATES_COUNT records of others, and in the answer to a ping request the target's. Settings
bound the length of every name in a record, which takes 130 to 230 bytes as a rule; so a ping takes
3 KiB at most, in a cluster of any size. Only a full exchange grows with it, by one record a member.
"""

import msgspec

from tierce.cluster.member import Member


class Ping(msgspec.Struct, frozen=True, array_like=True, tag="ping"):
    """Are you there? Whoever is at the address answers by :class:`Ack`, whatever its id."""


class PingRequest(msgspec.Struct, frozen=True, array_like=True, tag="ping-request"):
    """Is ``target`` there, for you, at ``address``? Answered by :class:`Ack` in any case."""

    target: str
    address: str


class Sync(msgspec.Struct, frozen=True, array_like=True, tag="sync"):
    """All that the sender knows, asked for and given: how a node joins, and how two catch up.

    ``ages_seconds`` says of each member that is not alive for how long it has been as it is.
    """

    members: tuple[Member, ...]
    ages_seconds: dict[str, int] = {}


class Ack(msgspec.Struct, frozen=True, array_like=True, tag="ack"):
    """I am here. To a ping request: whether the target answered."""

    reached: bool = True


class Question(msgspec.Struct, frozen=True, array_like=True):
    """What one node asks another, with news. A content of an unknown kind is a BadRequest."""

    sender: Member
    content: Ping | PingRequest | Sync
    updates: tuple[Member, ...] = ()


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What the other says to it, with its own news."""

    sender: Member
    content: Ack | Sync
    updates: tuple[Member, ...] = ()
