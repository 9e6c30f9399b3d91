"""Conditional requests (RFC 9110, section 13) for representations that can never change.

A blob has one strong entity tag and no date, so conditions with dates are ignored, as the RFC asks
of a server without a modification date, and only tags decide. A field that breaks the grammar
anywhere matches nothing, as a whole: then a read sends the bytes, and a guarded change is refused.

This module doesn't know how a tag is made. It must be given in the form in which it is sent, with
its quotes. It knows nothing of missing representations either: evaluate only once there is one.
"""

import re
from collections.abc import Mapping
from enum import Enum

_OPTIONAL_SPACE = " \t"
_OPAQUE_TAG = r'"[\x21\x23-\x7e\x80-\U0010ffff]*"'

# Members may be empty (section 5.6.1). Possessive: what fails to match is not tried in other ways.
_MEMBER = re.compile(rf"[ \t]*+(?:(W/)?({_OPAQUE_TAG})[ \t]*+)?+(?:,|\Z)")
_STRONG_TAG = re.compile(_OPAQUE_TAG)


class Outcome(Enum):
    """What the conditions of a request ask for: to be carried out, 304 or 412."""

    PROCEED = "proceed"
    NOT_MODIFIED = "not modified"
    PRECONDITION_FAILED = "precondition failed"


def etag_matches(header: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags, or ``*``, names ``etag`` (RFC 9110, section 8.8.3.2).

    ``header`` is the value of If-Match or If-None-Match, its lines joined with commas. ``etag`` is
    a strong tag in its quotes. With ``weak``, tags marked ``W/`` count as if they were strong;
    without, they match nothing.
    """
    assert _STRONG_TAG.fullmatch(etag), "an etag that is not strong and quoted"
    if header.strip(_OPTIONAL_SPACE) == "*":
        return True
    found = False
    position = 0
    while position < len(header):
        member = _MEMBER.match(header, position)
        if member is None:
            return False
        mark, tag = member.groups()
        found = found or (tag == etag and (weak or mark is None))
        position = member.end()
    return found


def evaluate(headers: Mapping[str, str], etag: str, *, safe: bool) -> Outcome:
    """Weigh If-Match, then If-None-Match, in the order of RFC 9110, section 13.2.2.

    ``headers`` is keyed by the names in their usual case, or regardless of case; lines of one name
    are already joined. ``safe`` says that the method is GET or HEAD: only these get NOT_MODIFIED.
    """
    if_match = headers.get("If-Match")
    if if_match is not None and not etag_matches(if_match, etag, weak=False):
        return Outcome.PRECONDITION_FAILED
    if_none_match = headers.get("If-None-Match")
    if if_none_match is not None and etag_matches(if_none_match, etag, weak=True):
        return Outcome.NOT_MODIFIED if safe else Outcome.PRECONDITION_FAILED
    return Outcome.PROCEED


def range_applies(if_range: str | None, etag: str) -> bool:
    """Whether Range counts, given the value of If-Range if there is one (RFC 9110, section 13.1.5).

    If-Range holds one tag, compared strongly, or a date, which never matches here: there is no
    modification date to compare it with. When this is false, serve the whole.
    """
    assert _STRONG_TAG.fullmatch(etag), "an etag that is not strong and quoted"
    return if_range is None or if_range.strip(_OPTIONAL_SPACE) == etag
