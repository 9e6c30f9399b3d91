"""A file with a store's credentials, for those who don't want them in the node's environment.

It has lines ``NAME=value`` with the names that the environment would have, as a file of systemd's
``EnvironmentFile``. What it has goes before the environment, so a node's store and its upstream may be
of different accounts. It is for its owner alone. No error shows a value.
"""

import re
from pathlib import Path

from tierce.blobs.credentials import read_private
from tierce.cloud.address import variables_of
from tierce.core.errors import BadRequest
from tierce.core.wording import did_you_mean

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", re.ASCII)


def read_variables(path: Path, service: str) -> dict[str, str]:
    """The variables of a service in such a file. Raises BadRequest, which names the line."""
    known = variables_of(service)
    found: dict[str, str] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise BadRequest(
                f"{path}, line {number} is not NAME=value", hint="A comment begins with #."
            )
        name, value = match[1], _unquoted(match[2])
        if name not in known:
            raise BadRequest(
                f"{path}, line {number}: {name[:60]} is no variable for {service}",
                hint=did_you_mean(name, known, f"There are: {', '.join(known)}."),
            )
        if not value:
            raise BadRequest(f"{path}, line {number}: {name} is empty", hint="Give its value.")
        found[name] = value
    if not found:
        raise BadRequest(f"{path} has no credentials", hint=f"There are: {', '.join(known)}.")
    return found


def _text(path: Path) -> str:
    try:
        return read_private(path).decode()
    except FileNotFoundError:
        raise BadRequest(
            f"{path} is not there", hint="Check the setting store_credentials_file."
        ) from None
    except UnicodeDecodeError:
        raise BadRequest(f"{path} is not text", hint="Write lines NAME=value in UTF-8.") from None


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value
