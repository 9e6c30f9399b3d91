"""Which blob servers SOS uses: the files ``~/.sos.conf`` and ``/etc/sos.conf``, and lists given as text.

Pure: text in, groups of addresses out. Both generations of the files are read. The older one is a
server a line. The newer one may have groups, ``[NAME]`` with a server a line below, written
``-: URL`` or as the bare URL; what stands before the first group, or in ``[DEFAULT]``, is left out,
as SOS does. An address needs no ``http://``; blanks and slashes at its end are cut.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import NamedTuple
from urllib.parse import urlsplit

from tierce.core.errors import BadRequest
from tierce.core.wording import quoted

# The group of servers that were listed without one.
FLAT_GROUP = "default"
# Those named on a command line come in place of both. The user's own comes first.
USUAL_FILES = ("~/.sos.conf", "/etc/sos.conf")

# Names of groups to the base URLs of their servers, both in the order of appearance.
Groups = Mapping[str, tuple[str, ...]]

_IGNORED_GROUP = "DEFAULT"
_HEADER = re.compile(r"\[\s*([^\[\]:]+?)\s*\]")
# ``-: URL`` and ``name = URL``; a bare ``host:2001`` or ``http://host`` has no blank after its colon.
_NUMBERED = re.compile(r"[^\s=:/]+\s*(?:=\s*|:\s+|:(?=https?://))(\S.*)")
_SETTING = re.compile(r"(?!https?://)(.*?)=(https?://.*|[^/=]+(?:/.*)?)")
_COMMENT = re.compile(r"(?:^|\s)[#;].*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class Listed(NamedTuple):
    """What was read. ``notes`` are sentences for the operator on what was left out."""

    groups: Groups
    notes: tuple[str, ...] = ()


def parse_file(text: str, name: str) -> Listed:
    """Read a file's text; ``name`` stands in messages. Raises BadRequest for what is no server."""
    lines = [
        (number, _COMMENT.sub("", line).strip())
        for number, line in enumerate(text.splitlines(), start=1)
    ]
    if not any(_HEADER.fullmatch(line) for _, line in lines):
        found = [
            (FLAT_GROUP, _url(line, f"{name}, line {number}")) for number, line in lines if line
        ]
        return _listed(found, ())
    return _listed(*_grouped(lines, name))


def parse_list(text: str) -> Listed:
    """Read ``URL,URL``, as a command line has it. Raises BadRequest."""
    found = [each.strip() for each in text.split(",")]
    return _listed([(FLAT_GROUP, _url(each, "the list")) for each in found if each], ())


def parse_settings(texts: Iterable[str]) -> Listed:
    """Read texts ``[GROUP=]URL``, as the setting ``sos_servers`` has them. Raises BadRequest."""
    found = []
    for text in texts:
        parts = _SETTING.fullmatch(text)
        group, url = (parts[1], parts[2]) if parts is not None else (FLAT_GROUP, text)
        found.append((group.strip() or FLAT_GROUP, _url(url, "sos_servers")))
    return _listed(found, ())


def as_settings(groups: Groups) -> tuple[str, ...]:
    """The texts from which :func:`parse_settings` makes the same groups."""
    return tuple(f"{group}={url}" for group, urls in groups.items() for url in urls)


def joined(lists: Iterable[Listed]) -> Listed:
    """Several lists as one: groups of the same name become one group."""
    every = list(lists)
    found = [(group, url) for each in every for group, urls in each.groups.items() for url in urls]
    return _listed(found, tuple(note for each in every for note in each.notes))


def ordered(groups: Mapping[str, Iterable[str]]) -> list[str]:
    """The order in which servers are tried: the first of each group, the second of each, and so on.

    A server of several groups is there once (wire/sos.md, section 7).
    """
    rounds = zip_longest(*groups.values())
    return list(dict.fromkeys(url for urls in rounds for url in urls if url is not None))


def _grouped(
    lines: Iterable[tuple[int, str]], name: str
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    found: list[tuple[str, str]] = []
    notes: list[str] = []
    group = _IGNORED_GROUP
    for number, line in lines:
        header = _HEADER.fullmatch(line)
        if header is not None:
            group = header[1]
        elif line and group == _IGNORED_GROUP:
            notes.append(f"{name}, line {number}: {quoted(line)} is in no group, and is left out.")
        elif line:
            numbered = _NUMBERED.fullmatch(line)
            url = line if numbered is None else numbered[1]
            found.append((group, _url(url, f"{name}, line {number}")))
    return found, tuple(notes)


def _listed(found: Iterable[tuple[str, str]], notes: tuple[str, ...]) -> Listed:
    groups: dict[str, dict[str, None]] = {}
    doubles: list[str] = []
    for group, url in found:
        urls = groups.setdefault(group, {})
        if url in urls:
            where = "" if group == FLAT_GROUP else f" in the group {quoted(group)}"
            doubles.append(f"{url} is listed twice{where}, and is used once.")
        urls[url] = None
    return Listed({group: tuple(urls) for group, urls in groups.items()}, (*notes, *doubles))


def _url(text: str, where: str) -> str:
    """An address in the form that is used everywhere, so that doubles look alike."""
    bare = text.strip()
    url = bare if _SCHEME.match(bare) else f"http://{bare}"
    if not _is_base(url):
        raise BadRequest(
            f"{where}: {quoted(text)} is not the address of a blob server",
            hint="Write http://HOST:PORT.",
        )
    parts = urlsplit(url)
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def _is_base(url: str) -> bool:
    """Whether it is a web address to which paths can be added."""
    if not url.isascii() or any(not "!" <= character <= "~" for character in url):
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return (
        parts.scheme.lower() in ("http", "https")
        and bool(parts.hostname)
        and port != 0
        and "@" not in parts.netloc
        and not parts.query
        and not parts.fragment
        and not set('",;<>\\^`{|}') & set(url)
    )
