"""What lies in a simulated node's cache, as the node itself knows it."""

from collections.abc import Mapping

from tierce.core.digest import Digest
from tierce.testing.memory_upstream import MemoryUpstream
from tierce.testing.sim_node import SimNode


def may_stay(node: SimNode, upstream: MemoryUpstream | None) -> set[Digest]:
    """What a node may have beyond its limit: it knows of it, and the upstream did not tell of it.

    One that does not run, or has not looked through its disk yet, can't know.
    """
    if upstream is None or node.disk.index is None:
        return set()
    refers, told = node.disk.index.refers, upstream.told
    cache = None if node.core is None else node.core.names.cache.limited
    if cache is not None and cache.status()["ready"]:
        known = list(cache.uncounted.undropped)
    else:
        known = list(node.disk.blobs)
    return {
        digest
        for digest in known
        if any(told.get(each.key, set()) - {digest} for each in refers(digest))
    }


def not_there(node: SimNode, uploaded: Mapping[str, Digest]) -> set[Digest]:
    """What the upstream lacks in truth, so that nobody may drop it.

    So it is for good with a content in whose place a put that failed left a newer one there.
    """
    index = node.disk.index
    return {
        digest
        for digest in node.disk.blobs
        if index is None or any(uploaded.get(each.key) != digest for each in index.refers(digest))
    }
