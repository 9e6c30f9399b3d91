"""What objects of a store are called in its bucket. Pure.

    blobs/<algorithm>/<2 hex>/<hex>   a blob, its bytes unchanged
    quarantine/<name>                 bad copies, never read again
    tierce-node.json                  whose bucket it is

The two digits are there for services that have directories, and so that a listing of one group fits into
memory. With the layout ``cask`` a blob named by SHA-1 is ``sha1:<hex>`` at the root, as a node of Cask
with the backend s3 puts it there.
"""

from typing import Literal, TypeAlias

from tierce.core.digest import Digest
from tierce.core.errors import BadRequest

Layout: TypeAlias = Literal["tierce", "cask"]

BLOBS_PREFIX = "blobs/"
OWNER_PATH = "tierce-node.json"
QUARANTINE_PREFIX = "quarantine/"
CASK_ALGORITHM = "sha1"


def path_of(digest: Digest, layout: Layout) -> str:
    """The path of a blob's object."""
    if layout == "cask" and digest.algorithm == CASK_ALGORITHM:
        return str(digest)
    return f"{BLOBS_PREFIX}{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def digest_of(path: str, layout: Layout) -> Digest | None:
    """The digest that a path names, or None for an object that is no blob of this layout."""
    text = path
    if path.startswith(BLOBS_PREFIX):
        algorithm, _, rest = path.removeprefix(BLOBS_PREFIX).partition("/")
        text = f"{algorithm}:{rest.rpartition('/')[2]}"
    try:
        digest = Digest.parse(text)
    except BadRequest:
        return None
    return digest if path_of(digest, layout) == path else None
