"""The URL of an upstream or a store, read into the options of an OpenDAL service. Pure.

``SERVICE://PLACE/PREFIX?option=value``: the place is the bucket (a container, or a host), the prefix
goes before every key, and the query holds further options of the service, by OpenDAL's names. Secrets
never stand in it: a URL is shown in logs, process lists and status pages.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from opendal import config as opendal_config

from tierce.cloud.failures import UPSTREAM
from tierce.core.errors import BadRequest

DEFAULT_REGION = "us-east-1"

_PLACES = {"azblob": "container", "swift": "container"}
"""The option that the place stands for, where it is not the bucket."""
_HOSTS = ("webdav", "webhdfs")
"""Services whose place is a host, reached by HTTPS unless ``endpoint`` says otherwise."""
_SECRET = re.compile(
    r"secret|passw|token|credential$|sas|access_key_id|connection_string|customer_key$|[a-z]_key$|^key$"
)
_S3_SECRETS = {
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
}
_S3_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_S3_ENDPOINT")
_S3_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


class Address(NamedTuple):
    """A service of OpenDAL and its options, secrets included; ``shown`` is fit for logs."""

    service: str
    options: dict[str, str]
    shown: str


def parse_address(url: str, environ: Mapping[str, str], what: str = UPSTREAM) -> Address:
    """Read a URL; secrets of other services than S3 come from ``environ``. Raises BadRequest.

    ``what`` is as in failures.py.
    """
    try:
        parts = urlsplit(url)
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _bad_url(f"the {what}'s URL can't be read") from None
    service = parts.scheme
    known = _known_options(service, what)
    _check_options(service, given, known, what)
    if "@" in parts.netloc or any("@" in value for name, value in given if name == "endpoint"):
        raise BadRequest(
            f"the {what}'s URL has a user's name or password in it",
            hint=_secret_hint(service, "password"),
        )
    options = _place(service, parts.netloc, unquote(parts.path), known, what)
    options.update(given)
    if service == "s3":
        options.setdefault("region", _first(environ, _S3_REGIONS) or DEFAULT_REGION)
        if endpoint := options.get("endpoint") or _first(environ, _S3_ENDPOINTS):
            options["endpoint"] = endpoint if "://" in endpoint else f"https://{endpoint}"
    else:
        for name in known:
            if value := environ.get(_variable(service, name)):
                options[name] = value
    query = f"?{parts.query}" if parts.query else ""
    return Address(service, options, f"{service}://{parts.netloc}{parts.path}{query}")


def _known_options(service: str, what: str) -> frozenset[str]:
    """The names of a service's options. Raises BadRequest for a service that there is not."""
    services: dict[str, Any] = {
        name.removesuffix("Config").lower(): each
        for name, each in vars(opendal_config).items()
        if name.endswith("Config") and hasattr(each, "__required_keys__")
    }
    found = services.get(service.replace("-", ""))
    if found is None:
        raise _bad_url(f"{service[:40]!a} is no service that the {what} can be on")
    return frozenset(found.__required_keys__ | found.__optional_keys__) - {"scheme", "root"}


def _check_options(
    service: str, given: list[tuple[str, str]], known: frozenset[str], what: str
) -> None:
    for name, _ in given:
        if name != "credential_path" and _SECRET.search(name):
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


def _secret_hint(service: str, name: str) -> str:
    if service == "s3":
        variable = _S3_SECRETS.get(name, "AWS_SECRET_ACCESS_KEY")
        return f"Take it out; set the environment variable {variable}, or use a profile or a role."
    return f"Take it out; set the environment variable {_variable(service, name)}."


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
