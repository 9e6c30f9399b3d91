"""Repr-Digest and Content-Digest (RFC 9530): digests as HTTP writes them.

Both fields are a structured-field dictionary (RFC 9651, section 3.2) from the name of an algorithm
to a byte sequence: ``sha-256=:BASE64:``. The RFC's names differ from ours, and this module holds
the one table between the two. Algorithms that we don't know are passed over, as the RFC asks; a
digest of ours that can't be right is an error, for a client that sends one wants it checked.

This module compares nothing: whether bytes fit a digest is for those who hash them.
"""

import base64
import re

from tierce.core.digest import ALGORITHMS, Digest
from tierce.core.errors import BadRequest

# RFC 9530, section 5. "sha" is how the registry calls SHA-1; blake3 isn't registered.
_FIELD_NAMES = {"blake3": "blake3", "sha1": "sha", "sha256": "sha-256", "sha512": "sha-512"}
_ALGORITHM_NAMES = {field_name: name for name, field_name in _FIELD_NAMES.items()}

# RFC 9651, sections 3.1.2 to 3.3. Repeats are possessive: no text takes more than linear time.
_KEY = r"[a-z*][a-z0-9_.*-]*+"
_BARE_ITEM = (
    r"(?:"
    r"-?[0-9]{1,12}\.[0-9]{1,3}|-?[0-9]{1,15}"  # decimal, integer
    r'|"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*+"'  # string
    r"|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*+"  # token
    r"|:[A-Za-z0-9+/=]*+:"  # byte sequence
    r"|\?[01]"  # boolean
    r"|@-?[0-9]{1,15}"  # date
    r'|%"(?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*+"'  # display string
    r")"
)
_MEMBER = re.compile(rf"({_KEY})(?:=({_BARE_ITEM}))?(?:; *+{_KEY}(?:={_BARE_ITEM})?)*+")
_SEPARATOR = re.compile(r"[ \t]*+,[ \t]*+")


def render(digest: Digest) -> str:
    """The value of Repr-Digest or Content-Digest for one digest (RFC 9530, sections 2 and 3)."""
    encoded = base64.b64encode(digest.raw).decode("ascii")
    return f"{_FIELD_NAMES[digest.algorithm]}=:{encoded}:"


def parse(header: str) -> dict[str, Digest]:
    """The digests in a Repr-Digest or Content-Digest, by our names of their algorithms (RFC 9530).

    Lines of one field are already joined with commas. Unknown algorithms and parameters are left
    out, so the result may be empty; of an algorithm named twice, the last digest counts. Raises
    BadRequest, with a hint, if the field is no dictionary of items, or if the digest of a known
    algorithm is no byte sequence of the right length.
    """
    digests = {}
    for key, value in _members(header.strip(" ")).items():
        name = _ALGORITHM_NAMES.get(key)
        if name is not None:
            digests[name] = Digest(name, _digest_bytes(name, value))
    return digests


def _members(text: str) -> dict[str, str]:
    """The dictionary, its values still as text: "" for a key alone, which means true."""
    members: dict[str, str] = {}
    position = 0
    while position < len(text):
        member = _MEMBER.match(text, position)
        if member is None:
            raise _malformed(position)
        members[member[1]] = member[2] or ""
        position = member.end()
        if position < len(text):
            separator = _SEPARATOR.match(text, position)
            # A comma at the end is an error too (RFC 9651, section 4.2.2).
            if separator is None or separator.end() == len(text):
                raise _malformed(position)
            position = separator.end()
    return members


def _malformed(position: int) -> BadRequest:
    return BadRequest(
        f"the digest field breaks its syntax at character {position + 1}",
        hint="Write it as RFC 9530 has it, for instance sha-256=:BASE64: with both colons.",
    )


def _digest_bytes(name: str, value: str) -> bytes:
    raw = _byte_sequence(value)
    size_bytes = ALGORITHMS[name].size_bytes
    if raw is None or len(raw) != size_bytes:
        raise BadRequest(
            f"the digest field does not hold a {name} digest",
            hint=f"Write {_FIELD_NAMES[name]}=:BASE64: with the {size_bytes} bytes of the digest.",
        )
    return raw


def _byte_sequence(value: str) -> bytes | None:
    """Decode ``:BASE64:`` (RFC 9651, section 4.2.7). Padding may be left out, but not be wrong."""
    if not value.startswith(":"):
        return None
    padded = value[1:-1]
    encoded = padded.rstrip("=")
    missing = -len(encoded) % 4
    if "=" in encoded or missing == 3 or len(padded) - len(encoded) not in (0, missing):
        return None
    return base64.b64decode(encoded + "=" * missing, validate=True)
