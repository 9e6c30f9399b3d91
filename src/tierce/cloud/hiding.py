"""Keeps secrets out of text that people get to see: errors, status pages, logs.

OpenDAL's errors hold the URLs of requests, and at some services those hold credentials: Google Drive's
refresh token and client secret, Azure's signature. Whoever reads credentials tells them to :func:`hide`;
:func:`without_secrets` takes them out of a text, in every form that they are sent in. What a service
made of them (access tokens, signatures) nobody here knows, so it also takes out whatever stands where a
secret does.
"""

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

SHORTEST_CHARACTERS = 4
"""Shorter values are not looked for: they would take pieces out of ordinary words."""
INSTEAD = "..."

_URL_USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)(?:[^\s?#\"']*:[^\s?#\"']*|[^\s/?#\"']*)@", re.I)
_URL_QUERY = re.compile(r"(\bhttps?://[^\s?\"']*\?)[^\s\"')]+", re.I)
_NAMED = re.compile(
    r"""((?:token|secret|passw\w*|signature|\bsig|delegation|api_?key)["']?(?:=|["']?:\s*["']))"""
    r"""[^\s"'&]+""",
    re.I,
)
_BEARER = re.compile(r"(\b(?:Bearer|Basic)\s+)[\w.~+/=-]+", re.I)

_hidden: set[str] = set()


def hide(values: Iterable[str]) -> None:
    """Remember secrets of this process, for as long as it lives."""
    for value in values:
        if len(value) >= SHORTEST_CHARACTERS:
            _hidden.update((value, quote(value), quote(value, safe=""), quote_plus(value)))


def without_secrets(text: str) -> str:
    """The text with dots in place of secrets, of URLs' queries, and of users' names in URLs."""
    for value in sorted(_hidden, key=len, reverse=True):
        text = text.replace(value, INSTEAD)
    for pattern in (_URL_QUERY, _NAMED, _BEARER):
        text = pattern.sub(rf"\1{INSTEAD}", text)
    return _URL_USER.sub(rf"\1{INSTEAD}@", text)
