"""The account of the whole cluster, put together from what each node says of itself.

The numbers of blobs are sums over the nodes that answered: each blob is counted by the best placed
node that holds it, so none is counted twice.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tierce.cluster.member import Member
from tierce.cluster.placement import Placement

_SUMMED = ("below_target", "at_target", "over_target", "bytes_to_move")


def member_content(member: Member) -> dict[str, Any]:
    """A member's record, for people and programs."""
    return {
        "node_id": member.node_id,
        "state": member.state.name.lower(),
        "dialect": member.dialect,
        "private": member.private,
        "native": member.native,
        "cask": member.cask,
        "zone": member.zone,
        "weight": member.weight,
        "writable": member.writable,
        "draining": member.draining,
        "version": member.version,
    }


def content(
    placement: Placement,
    down_seconds: Mapping[str, float],
    accounts: Sequence[dict[str, Any] | None],
) -> dict[str, Any]:
    """The overview. ``accounts`` are those of the view's members, None where there was no answer."""
    members = placement.view.members
    # A node of another version may say less.
    healing = [account.get("healing", {}) for account in accounts if account is not None]
    sums = {name: sum(each.get(name, 0) for each in healing) for name in _SUMMED}
    estimates = [each.get("estimated_seconds") for each in healing]
    known = [each for each in estimates if each is not None]
    silent = [
        member.node_id
        for member, account in zip(members, accounts, strict=True)
        if account is None and member.dialect == "tierce"
    ]
    settled = (
        not silent
        and not placement.view.is_seeking
        and not any(sums[name] for name in ("below_target", "over_target", "bytes_to_move"))
        and all(each.get("last_pass") and each.get("phase") == "resting" for each in healing)
    )
    return {
        "node_id": placement.view.me,
        "replication": placement.replication,
        "max_replication": placement.max_replication,
        "blobs": sum(each.get("responsible_blobs", 0) for each in healing),
        **sums,
        "estimated_seconds": max(known, default=0.0) if len(known) == len(estimates) else None,
        "settled": settled,
        "warnings": _warnings(placement),
        "nodes": [
            {
                **member_content(member),
                "drained": bool(account and account.get("drained")),
                "down_seconds": _rounded(down_seconds.get(member.node_id)),
                "status": account,
            }
            for member, account in zip(members, accounts, strict=True)
        ],
    }


def _warnings(placement: Placement) -> list[str]:
    """What an operator should put right."""
    found = []
    if placement.view.is_seeking:
        found.append("this node has not yet reached any of the nodes that it is to join")
    ours = [each for each in placement.view.members if each.dialect == "tierce"]
    for name in ("replication", "max_replication"):
        if len({getattr(each, name) for each in ours}) > 1:
            found.append(f"the nodes are set to different {name}; the highest counts")
    if len({bool(each.zone) for each in ours}) > 1:
        found.append("some nodes have a zone and some have none; those count as one zone")
    return found


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
