"""What comes with a post: headers whose name begins with ``X-``, which are kept with the object.

Of these some speak to servers and browsers. Those that a proxy adds say nothing of the object. And
those that a proxy obeys when they come back would let whoever may upload have it send files of its
own, so they are neither kept nor sent.
"""

import re

from aiohttp import web

from tierce.service.sos_blobs import draft_of

_NAME = re.compile(r"[Xx]-[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_LEFT_OUT = re.compile(
    r"X-(?:"
    r"Forwarded-.*|Real-Ip"  # added by proxies on the way in
    r"|Accel-.*|Sendfile.*|Lighttpd-.*|Reproxy-.*"  # obeyed by proxies on the way out
    r"|Content-Type-Options"  # said by the door itself
    r")"
)


def canonical(name: str) -> str:
    """The form in which Go writes a header's name: ``X-MIME-Type`` becomes ``X-Mime-Type``."""
    return "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))


def is_kept(name: str) -> bool:
    """Whether a header is kept with an object, and sent with it."""
    return _NAME.fullmatch(name) is not None and not _LEFT_OUT.fullmatch(canonical(name))


def metadata_of(request: web.BaseRequest) -> dict[str, str]:
    """The X- headers of a post, by their canonical names; of several with one name the first.

    Raises BadRequest for what is no UTF-8, or TooLarge for what is too much.
    """
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        if is_kept(name):
            found.setdefault(canonical(name), value)
    if found:
        draft_of("any", found)
    return found
