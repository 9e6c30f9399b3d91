"""From flags, environment and TOML file to settings, each with its origin.

Pure: what was found is an argument, and so is the reading of the one file that is named by a
setting. The first source that gives a value wins, in that order; defaults come last. Whatever is
unknown or malformed is refused, with the name of the setting, its origin and what to write instead:
a misspelt name must never leave a node running with a default in silence.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tierce.core.errors import BadRequest
from tierce.core.settings import ENVIRONMENT_PREFIX, SETTINGS, Setting, Settings
from tierce.core.wording import did_you_mean, quoted

DEFAULT = "default"

# Variables of ours that are no settings: where the file is, and what client commands use.
OTHER_VARIABLES = ("TIERCE_CONFIG", "TIERCE_URL", "TIERCE_TOKEN", "TIERCE_DTFC_URL")
_TEST_PREFIX = "TIERCE_TEST_"

# Kubernetes gives every pod variables that are named after the Services around it.
KUBERNETES_HINT = "If Kubernetes set it for a Service, set enableServiceLinks: false in the pod."
_OF_KUBERNETES = re.compile(r"[A-Z0-9_]+_(SERVICE_(HOST|PORT)|PORT)(_[A-Z0-9_]+)?")


@dataclass(frozen=True, slots=True)
class Given:
    """A value among the flags that came from elsewhere; its origin is shown in place of a flag's.

    Another dialect's settings enter this way, their cluster secret as well.
    """

    value: object = field(repr=False)
    origin: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings, and for each the place that it came from, such as ``environment TIERCE_DATA``."""

    settings: Settings
    origins: dict[str, str]


def resolve(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    file: Mapping[str, object],
    file_name: str,
    read_text: Callable[[Path], str],
) -> Resolved:
    """Put the sources together. Raises BadRequest for anything unknown, malformed or at odds.

    ``flags`` maps names of settings to text, lists of text, booleans or :class:`Given`; None and
    empty lists stand for flags that were not given, as do empty variables in ``environ``.
    """
    assert flags.keys() <= SETTINGS.keys(), f"no settings: {flags.keys() - SETTINGS.keys()}"
    _refuse_unknown_variables(environ)
    _refuse_unknown_keys(file, file_name)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, setting in SETTINGS.items():
        given = _find(setting, flags, environ, file, file_name)
        origins[name] = DEFAULT if given is None else given.origin
        if given is not None:
            values[name] = _parse(setting, given)
    _take_secret_from_file(values, origins, read_text)
    settings = Settings(**values)
    _check_together(settings, origins)
    return Resolved(settings, origins)


def unknown_variable(name: str, known: Iterable[str], prefix: str) -> BadRequest:
    """The refusal of a variable that has the prefix of known ones and no meaning."""
    where = "Correct it or unset it; docs/settings.md lists them all."
    hint = did_you_mean(name, known, where, prefix=prefix)
    if _OF_KUBERNETES.fullmatch(name):
        hint = f"{hint} {KUBERNETES_HINT}"
    return BadRequest(f"{quoted(name)} is not a known environment variable", hint=hint)


def _find(
    setting: Setting,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    file: Mapping[str, object],
    file_name: str,
) -> Given | None:
    value = flags.get(setting.name)
    if isinstance(value, Given):
        return value
    if value not in (None, (), []):
        assert setting.is_flag, f"{setting.name} is no flag"
        return Given(value, f"flag {setting.flag}")
    text = environ.get(setting.environment, "")
    if text:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return Given(parts if setting.kind.many else text, f"environment {setting.environment}")
    if setting.name in file:
        return Given(file[setting.name], f"file {file_name}")
    return None


def _parse(setting: Setting, given: Given) -> object:
    try:
        return setting.kind.parse(given.value)
    except BadRequest as error:
        message = f"{setting.name}, from {given.origin}: {error.message}"
        raise BadRequest(message, hint=error.hint) from None


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = [setting.environment for setting in SETTINGS.values()] + [*OTHER_VARIABLES]
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX) or name.startswith(_TEST_PREFIX):
            continue
        if name not in known:
            raise unknown_variable(name, known, ENVIRONMENT_PREFIX)


def _refuse_unknown_keys(file: Mapping[str, object], file_name: str) -> None:
    known = [setting.name for setting in SETTINGS.values() if setting.in_file]
    for key in file:
        if key in known:
            continue
        if key in SETTINGS:
            raise BadRequest(
                f"{key} can't stand in {file_name}",
                hint=f"Put it in {SETTINGS[key].environment}, or name its file in {key}_file.",
            )
        raise BadRequest(
            f"{quoted(key)} in {file_name} is not a setting",
            hint=did_you_mean(key, known, "`tierce config` lists them all."),
        )


def _take_secret_from_file(
    values: dict[str, Any], origins: dict[str, str], read_text: Callable[[Path], str]
) -> None:
    path: Path | None = values.get("cluster_secret_file")
    if path is None:
        return
    named = f"cluster_secret_file, from {origins['cluster_secret_file']}"
    if "cluster_secret" in values:
        raise BadRequest(
            f"cluster_secret is set twice: by {origins['cluster_secret']}, and by {named}",
            hint="Keep one of the two.",
        )
    try:
        secret = read_text(path).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "it is not text") or str(error)
        raise BadRequest(
            f"{named}: can't read {quoted(str(path))}: {reason}",
            hint="Name a file that holds the secret and that this user may read.",
        ) from error
    if not secret:
        raise BadRequest(
            f"{named}: {quoted(str(path))} is empty", hint="Write the secret in the file."
        )
    origins["cluster_secret"] = f"file {path}"
    given = Given(secret, origins["cluster_secret"])
    values["cluster_secret"] = _parse(SETTINGS["cluster_secret"], given)


def _check_together(settings: Settings, origins: Mapping[str, str]) -> None:
    """What settings must agree on among each other."""
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        there, missing = "tls_certificate", "tls_key"
        if settings.tls_certificate is None:
            there, missing = missing, there
        raise BadRequest(
            f"{there}, from {origins[there]}, is set without {missing}",
            hint="Set both for TLS, or neither for plain HTTP.",
        )
    addresses = [each[1:] for each in settings.listen if each.port]
    for address in addresses:
        if addresses.count(address) > 1:
            raise BadRequest(
                f"listen, from {origins['listen']}: two doors share {address[0]} port {address[1]}",
                hint="Give each door a port of its own.",
            )
    for what, values in (
        ("name", [token.name for token in settings.tokens]),
        ("hash", [token.sha256 for token in settings.tokens]),
    ):
        if len(set(values)) < len(values):
            raise BadRequest(
                f"tokens, from {origins['tokens']}: two tokens have the same {what}",
                hint="Make each with `tierce token new`, under a name of its own.",
            )
