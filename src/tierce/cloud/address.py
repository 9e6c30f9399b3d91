"""The URL of an upstream or a store, read into the options of an OpenDAL service.

``SERVICE://PLACE/PREFIX?option=value``: the place is the bucket (a container, or a host), the prefix
goes before every key, and the query holds further options of the service, by OpenDAL's names. Secrets
never stand in it: a URL is shown in logs, process lists and status pages. Those that are found in the
environment are told to hiding.py; but for that, nothing here is changed or asked.
"""

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from opendal import config as opendal_config
from opendal.services import Scheme

from tierce.cloud.failures import UPSTREAM
from tierce.cloud.hiding import hide
from tierce.core.errors import BadRequest

DEFAULT_REGION = "us-east-1"

_PLACES = {
    "azblob": "container",
    "azdls": "filesystem",
    "azfile": "share_name",
    "swift": "container",
}
"""The option that the place stands for, where it is not the bucket."""
_HOSTS = ("webdav", "webhdfs")
"""Services whose place is a host, reached by HTTPS unless ``endpoint`` says otherwise."""
_SECRET = re.compile(
    r"secret|passw|token|credential$|sas|(?:access|application)_key|connection_string"
    r"|[a-z]_key$|^key$|delegation"
)
_FILE = re.compile(r"_(?:path|file)$")
"""The names of options that name a file, which may hold a secret and is none."""
_USER_IN_URL = re.compile(r"://[^/?#]*@")
_S3_SECRETS = {
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
}
_S3_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_S3_ENDPOINT")
_S3_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


INSTALLED: Final = frozenset(
    re.sub(r"(?<!^)([A-Z])", r"-\1", name).lower() for name in vars(Scheme) if name[0].isupper()
)
"""The services that the installed OpenDAL was built with."""


class Address(NamedTuple):
    """A service of OpenDAL and its options, secrets included; ``shown`` is fit for logs."""

    service: str
    options: dict[str, str]
    shown: str


def parse_address(
    url: str,
    environ: Mapping[str, str],
    what: str = UPSTREAM,
    *,
    own: Mapping[str, str] = MappingProxyType({}),
) -> Address:
    """Read a URL; secrets of other services than S3 come from ``environ``. Raises BadRequest.

    ``own`` are further variables, which go before those, and are for this service alone: for S3, too.
    ``what`` is as in failures.py.
    """
    environ = {**environ, **own}
    try:
        parts = urlsplit(url)
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _bad_url(f"the {what}'s URL can't be read") from None
    service = parts.scheme
    known = _known_options(service, what)
    _check_options(service, given, known, what)
    if _has_user(parts.netloc, unquote(parts.path), given, known):
        names = [name for name in ("password", "connection_string") if name in known]
        raise BadRequest(
            f"the {what}'s URL has a user's name or password in it",
            hint=_secret_hint(service, *names),
        )
    options = _place(service, parts.netloc, unquote(parts.path), known, what)
    options.update(given)
    if service == "s3":
        options.setdefault("region", _first(environ, _S3_REGIONS) or DEFAULT_REGION)
        if endpoint := options.get("endpoint") or _first(environ, _S3_ENDPOINTS):
            options["endpoint"] = endpoint if "://" in endpoint else f"https://{endpoint}"
        options.update({name: own[each] for name, each in _S3_SECRETS.items() if each in own})
        hide(environ.get(name, "") for name in _S3_SECRETS.values())
    else:
        for name in known:
            if value := environ.get(_variable(service, name)):
                options[name] = value
        hide(value for name, value in options.items() if is_secret(name))
    query = f"?{parts.query}" if parts.query else ""
    return Address(service, options, f"{service}://{parts.netloc}{parts.path}{query}")


def is_secret(option: str) -> bool:
    """Whether an option of a service is a secret, by its name alone."""
    return _SECRET.search(option) is not None and _FILE.search(option) is None


def service_options() -> dict[str, frozenset[str]]:
    """All services that OpenDAL knows, with the names of their options; not all need be installed."""
    return {
        re.sub(r"(?<!^)([A-Z])", r"-\1", name.removesuffix("Config")).lower(): frozenset(
            each.__required_keys__ | each.__optional_keys__
        )
        - {"scheme", "root"}
        for name, each in vars(opendal_config).items()
        if name.endswith("Config") and hasattr(each, "__required_keys__")
    }


def variables_of(service: str) -> tuple[str, ...]:
    """The variables by which a service's options are given, for S3 its credentials only."""
    if service == "s3":
        return tuple(_S3_SECRETS.values())
    return tuple(_variable(service, name) for name in sorted(service_options().get(service, ())))


def _known_options(service: str, what: str) -> frozenset[str]:
    """The names of a service's options. Raises BadRequest for a service that is not there."""
    found = service_options().get(service)
    if found is None:
        raise _bad_url(f"{service[:40]!a} is no service that the {what} can be on")
    if service not in INSTALLED:
        raise BadRequest(
            f"{service} is not among the services of the installed OpenDAL",
            hint=f"There are: {', '.join(sorted(INSTALLED))}.",
        )
    return found


def _check_options(
    service: str, given: list[tuple[str, str]], known: frozenset[str], what: str
) -> None:
    for name, _ in given:
        if is_secret(name):
            raise BadRequest(
                f"the {what}'s URL has the secret {name[:40]!a} in it",
                hint=_secret_hint(service, name),
            )
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise BadRequest(
                f"{name[:40]!a} is no option of {service}",
                hint=f"Write {near[0]}." if near else f"There are: {', '.join(sorted(known))}.",
            )


def _place(
    service: str, netloc: str, path: str, known: frozenset[str], what: str
) -> dict[str, str]:
    """The options that the part before the query stands for."""
    options = {"root": path} if path.strip("/") else {}
    if service in _HOSTS:
        return {**options, "endpoint": f"https://{netloc}"} if netloc else options
    option = _PLACES.get(service, "bucket")
    if option in known:
        if not netloc:
            raise _bad_url(f"the {what}'s URL names no {option}")
        return {**options, option: netloc}
    if netloc:
        raise BadRequest(
            f"the {what}'s URL names {netloc[:40]!a}, and {service} has no such thing",
            hint=f"Write {service}:///PREFIX with three slashes, and options after a question mark.",
        )
    if service == "fs" and not options:
        raise _bad_url(f"the {what}'s URL names no directory")
    return options


def _has_user(netloc: str, path: str, given: list[tuple[str, str]], known: frozenset[str]) -> bool:
    """Whether somebody put USER:PASSWORD@ somewhere; a database's may come in a path by mistake."""
    return (
        "@" in netloc
        or ("connection_string" in known and "@" in path)
        or any(_USER_IN_URL.search(text) for text in (path, *(value for _, value in given)))
        or any("@" in value for name, value in given if name == "endpoint")
    )


def _secret_hint(service: str, *names: str) -> str:
    if service == "s3":
        variable = _S3_SECRETS.get(names[0] if names else "", "AWS_SECRET_ACCESS_KEY")
        return f"Take it out; set the environment variable {variable}, or use a profile or a role."
    if not names:
        return f"Take it out; see what `OPENDAL_{service.upper()}_...` there is in docs/storage.md."
    return f"Take it out; set the environment variable {_variable(service, names[0])}."


def _variable(service: str, option: str) -> str:
    return f"OPENDAL_{service}_{option}".upper().replace("-", "_")


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((environ[name] for name in names if environ.get(name)), "")


def _bad_url(message: str) -> BadRequest:
    return BadRequest(
        message,
        hint="Write for instance s3://BUCKET/PREFIX?region=eu-west-1, gcs://BUCKET, "
        "azblob://CONTAINER?endpoint=URL, webdav://HOST/PATH or fs:///DIRECTORY.",
    )
