"""The kinds of values that settings hold: how each is read, and how it is shown.

A kind reads what any source may give: text from flags and the environment, and numbers, booleans,
text and arrays from TOML. It raises BadRequest with a hint, and knows neither the setting nor the
source; whoever called adds those. What ``show`` gives back hides secrets and is read again by
``parse`` for every kind that has none.
"""

import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from tierce.core.errors import BadRequest
from tierce.core.listen import Listen
from tierce.core.rights import Right, Token, format_rights, parse_rights
from tierce.core.sizes import format_duration, format_size, parse_duration, parse_size
from tierce.core.wording import did_you_mean, quoted

T = TypeVar("T")
Name = TypeVar("Name", bound=str)

INTEGER_MAX = (1 << 63) - 1
NODE_ID_LIMIT_CHARACTERS = 255

_WHOLE = re.compile(r"[+-]?(?=[0-9_]{1,40}$)[0-9]+(_[0-9]+)*", re.ASCII)
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_.-]{0,64}", re.ASCII)
_URL_CHARACTERS = re.compile(r"[!-~]+")
_IN_PLACE = re.compile(r"://(?:[^?#]*:[^?#]*|[^/?#]*)@")
_IN_QUERY = re.compile(
    r"([?&][^=&]*(?:secret|passw|token|key|sas|credential|connection_string|delegation)[^=&]*=)[^&]*",
    re.I,
)
_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A kind of value. ``many`` marks lists, ``switch`` what a flag gives without a value."""

    metavar: str
    parse: Callable[[object], T]
    show: Callable[[T], str]
    many: bool = False
    switch: bool = False


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{quoted(value)} is not text", hint="Put it in quotes.")
    return value


def _between(shown: str, value: float, minimum: float, maximum: float, unit: str) -> None:
    if not minimum <= value <= maximum:
        side = f"below {minimum:g}" if value < minimum else f"above {maximum:g}"
        upper = f" to {maximum:g}" if maximum < INTEGER_MAX else " up"
        raise BadRequest(f"{shown} is {side}", hint=f"Write {unit} from {minimum:g}{upper}.")


def whole(minimum: int, maximum: int = INTEGER_MAX) -> Kind[int]:
    """A whole number."""

    def parse(value: object) -> int:
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(text, str) or not _WHOLE.fullmatch(text.strip()):
            raise BadRequest(f"{quoted(value)} is not a whole number", hint="Write it in digits.")
        number = int(text)
        _between(quoted(value), number, minimum, maximum, "a whole number")
        return number

    return Kind("NUMBER", parse, str)


def size(minimum: int = 0, maximum: int = INTEGER_MAX) -> Kind[int]:
    """A number of bytes."""

    def parse(value: object) -> int:
        size_bytes = parse_size(value)
        if not minimum <= size_bytes <= maximum:
            upper = f" to {format_size(maximum)}" if maximum < INTEGER_MAX else " up"
            raise BadRequest(
                f"{quoted(value)} is {'too small' if size_bytes < minimum else 'too large'}",
                hint=f"Write a size from {format_size(minimum)}{upper}.",
            )
        return size_bytes

    return Kind("SIZE", parse, format_size)


def duration(minimum: float = 0.001, *, else_seconds: float | None = None) -> Kind[float]:
    """Seconds. What is below ``minimum`` becomes ``else_seconds``, or is refused without one."""

    def parse(value: object) -> float:
        seconds = parse_duration(value)
        if seconds < minimum and else_seconds is not None:
            return else_seconds
        _between(quoted(value), seconds, minimum, INTEGER_MAX, "a number of seconds")
        return seconds

    return Kind("SECONDS", parse, format_duration)


def or_auto(kind: Kind[T], automatic: Callable[[], T], shown: str = "") -> Kind[T]:
    """The kind, with the word ``auto`` for what ``automatic`` gives (shown as ``shown`` if set)."""

    def parse(value: object) -> T:
        if isinstance(value, str) and value.strip().lower() == "auto":
            return automatic()
        try:
            return kind.parse(value)
        except BadRequest as error:
            raise BadRequest(error.message, hint=f"{error.hint} Or write auto.") from None

    def show(value: T) -> str:
        return shown if shown and value == automatic() else kind.show(value)

    return Kind(f"{kind.metavar}|auto", parse, show)


def number(minimum: float, maximum: float) -> Kind[float]:
    """A decimal number."""

    def parse(value: object) -> float:
        text = (
            str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
        )
        if not isinstance(text, str) or not _DECIMAL.fullmatch(text.strip()):
            raise BadRequest(f"{quoted(value)} is not a number", hint="Write it as in 1 or 0.5.")
        found = float(text)
        _between(quoted(value), found, minimum, maximum, "a number")
        return found

    return Kind("NUMBER", parse, lambda value: f"{value:g}")


def optional(kind: Kind[T]) -> Kind[T | None]:
    """The kind, or None where the text is empty."""

    def parse(value: object) -> T | None:
        return None if value == "" else kind.parse(value)

    def show(value: T | None) -> str:
        return "" if value is None else kind.show(value)

    return Kind(kind.metavar, parse, show)


def listed(kind: Kind[T], *, at_least: int = 0) -> Kind[tuple[T, ...]]:
    """Any number of values of a kind, each once."""

    def parse(value: object) -> tuple[T, ...]:
        if not isinstance(value, (list, tuple)):
            raise BadRequest(
                "it is not a list", hint='Write an array, as in ["FIRST", "SECOND"], even for one.'
            )
        items = tuple(kind.parse(item) for item in value)
        if len(items) < at_least:
            raise BadRequest("the list is empty", hint=f"Name at least {at_least}.")
        for index, item in enumerate(items):
            if item in items[:index]:
                raise BadRequest(f"{quoted(kind.show(item))} is there twice", hint="Drop one.")
        return items

    def show(values: tuple[T, ...]) -> str:
        return ",".join(map(kind.show, values))

    return Kind(kind.metavar, parse, show, many=True)


def choice(*names: Name) -> Kind[Name]:
    """One of a few words."""

    def parse(value: object) -> Name:
        word = _text(value).strip().lower()
        for name in names:
            if name == word:
                return name
        raise BadRequest(
            f"{quoted(value)} is not a choice",
            hint=did_you_mean(word, names, f"Write one of {', '.join(names)}."),
        )

    return Kind("|".join(names), parse, str)


def _parse_switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in _TRUE and word not in _FALSE:
        raise BadRequest(f"{quoted(value)} is neither true nor false", hint="Write true or false.")
    return word in _TRUE


def _parse_path(value: object) -> Path:
    text = _text(value)
    if not text or "\0" in text:
        raise BadRequest(f"{quoted(text)} is not a path", hint="Name a file or a directory.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"the path {quoted(text)} is not UTF-8", hint="Rename it.") from None
    return Path(text)


def _end_slash(value: object) -> str:
    """What a path loses at its end, where it is the beginning of another one."""
    return "/" if isinstance(value, str) and len(value) > 1 and value.endswith("/") else ""


def _parse_node_id(value: object) -> str:
    text = _text(value)
    if len(text) > NODE_ID_LIMIT_CHARACTERS:
        raise BadRequest(
            f"the id has {len(text)} characters",
            hint=f"Use {NODE_ID_LIMIT_CHARACTERS} at most.",
        )
    if not text.isprintable() or "/" in text or text != text.strip():
        raise BadRequest(
            f"{quoted(text)} can't be the id of a node",
            hint="Use no slash, no control character, and no space at either end.",
        )
    return text


def _parse_url(value: object) -> str:
    text = _text(value).strip().rstrip("/")
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not _URL_CHARACTERS.fullmatch(text) or re.search(r"[?#@,\\]", text):
        raise BadRequest(
            f"{quoted(value)} is not a base URL", hint="Write it as in http://10.0.0.5:8080."
        )
    return text


def _parse_sos_server(value: object) -> str:
    """The base URL of a blob server of SOS, with the name of its group in front if it has one."""
    text = _text(value).strip()
    parts = re.fullmatch(r"(.*?)=(https?://.*)", text)
    if parts is None:
        return _parse_url(text)
    group = parts[1].strip()
    if not group or not group.isprintable() or "," in group or "://" in group:
        raise BadRequest(
            f"{quoted(group)} is not the name of a group",
            hint="Write GROUP=URL, with a name that has no comma, or the URL alone.",
        )
    return f"{group}={_parse_url(parts[2])}"


def _parse_upstream(value: object) -> str:
    return _parse_bucket(value, "an upstream")


def _parse_bucket(value: object, what: str) -> str:
    """Only its form: which services and options there are, cloud/address.py knows."""
    text = _text(value).strip()
    if not re.fullmatch(r"[a-z][a-z0-9-]*://\S*", text) or not text.isprintable():
        raise BadRequest(
            f"{quoted(_show_bucket(text))} is not the URL of {what}",
            hint="Write it as in s3://BUCKET?region=us-east-1.",
        )
    return text


def _show_bucket(url: str) -> str:
    """No secret may stand in a URL. One that does is refused later, and is never shown."""
    return _IN_QUERY.sub(r"\1...", _IN_PLACE.sub("://...@", url))


def _parse_secret(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise BadRequest(
            "the secret has a control character in it", hint="Use letters, digits and punctuation."
        )
    return value


def _parse_listen(value: object) -> Listen:
    return Listen.parse(_text(value))


def _parse_private(value: object) -> Listen:
    return Listen.private(_text(value))


def _parse_peer(value: object) -> str:
    """Another node: the address of its private door, or the base URL of its Cask door."""
    text = _text(value).strip()
    if "://" in text:
        return _parse_url(text)
    found = Listen.private(text)
    if not found.port:
        raise BadRequest(f"{quoted(text)} names no port", hint="Write the port of the other node.")
    return found.address


def _parse_network(value: object) -> str:
    text = _text(value).strip()
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise BadRequest(
            f"{quoted(text)} is not a network", hint="Write it as in 10.0.0.0/8 or 10.1.2.3."
        ) from None


def _parse_word(value: object) -> str:
    text = _text(value).strip()
    if not _WORD.fullmatch(text):
        raise BadRequest(
            f"{quoted(text)} is not a name",
            hint="Use letters, digits, dots and dashes, 64 at most.",
        )
    return text


def _parse_token(value: object) -> Token:
    if not isinstance(value, str):
        raise BadRequest("a token is not text", hint="Put it in quotes.")
    return Token.parse(value)


def _parse_anonymous(value: object) -> frozenset[Right] | None:
    word = _text(value).strip().lower()
    if word == "auto":
        return None
    try:
        return frozenset() if word == "none" else parse_rights(word)
    except BadRequest as error:
        raise BadRequest(error.message, hint=f"{error.hint} Or write none or auto.") from None


def _show_anonymous(rights: frozenset[Right] | None) -> str:
    return "auto" if rights is None else format_rights(rights) or "none"


def _show_token(token: Token) -> str:
    return token.masked


def _show_secret(secret: str) -> str:
    return "set" if secret else "not set"


def cpu_count() -> int:
    """The processors that this process may run on."""
    return len(os.sched_getaffinity(0))


switch: Kind[bool] = Kind("", _parse_switch, lambda value: str(value).lower(), switch=True)
path: Kind[Path] = Kind("PATH", _parse_path, str)
node_id: Kind[str] = Kind("ID", _parse_node_id, str)
base_url: Kind[str] = Kind("URL", _parse_url, str)
base_url_or_empty: Kind[str] = Kind(
    "URL", lambda value: "" if value == "" else _parse_url(value), str
)
sos_server: Kind[str] = Kind("[GROUP=]URL", _parse_sos_server, str)
upstream_or_empty: Kind[str] = Kind(
    "URL", lambda value: "" if value == "" else _parse_upstream(value), _show_bucket
)
store_or_empty: Kind[str] = Kind(
    "URL", lambda value: "" if value == "" else _parse_bucket(value, "a store"), _show_bucket
)
listen: Kind[Listen] = Kind("DOOR=HOST:PORT", _parse_listen, str)
private: Kind[Listen] = Kind("HOST:PORT", _parse_private, lambda value: value.address)
peer: Kind[str] = Kind("HOST:PORT", _parse_peer, str)
peer_or_empty: Kind[str] = Kind(
    "HOST:PORT", lambda value: "" if value == "" else _parse_private(value).address, str
)
network: Kind[str] = Kind("NETWORK", _parse_network, str)
prefix: Kind[str] = Kind(
    "PATH", lambda value: "" if value == "" else str(_parse_path(value)) + _end_slash(value), str
)
word: Kind[str] = Kind("NAME", _parse_word, str)
token: Kind[Token] = Kind("NAME:RIGHTS:sha256-HEX", _parse_token, _show_token)
secret: Kind[str] = Kind("SECRET", _parse_secret, _show_secret)
anonymous_rights: Kind[frozenset[Right] | None] = Kind(
    "RIGHTS|none|auto", _parse_anonymous, _show_anonymous
)
