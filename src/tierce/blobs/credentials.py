"""The credentials of a store at Dropbox or Google Drive: where they are kept, and who may read them.

``tierce auth SERVICE`` writes ``credentials/SERVICE.json`` in the data directory, and whoever opens
the store asks :func:`service_options` for what OpenDAL needs: the client (the user's own app), its
secret and a refresh token, from which OpenDAL makes access tokens by itself. The file is for its
owner alone, and is refused otherwise. It appears whole or not at all. What is in the environment
goes before it. Nothing here shows a secret: neither errors nor the ``repr`` of what is returned.
"""

import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tierce.blobs.quarantine import sync_directory
from tierce.core.errors import BadRequest, from_os_error

SERVICES = ("dropbox", "gdrive")
FORMAT_VERSION = 1
FILE_LIMIT_BYTES = 64 * 1024

CLIENT_ID = "client_id"
CLIENT_SECRET = "client_secret"  # noqa: S105 (an option's name)
REFRESH_TOKEN = "refresh_token"  # noqa: S105 (an option's name)
ACCESS_TOKEN = "access_token"  # noqa: S105 (an option's name)

_OF_CASK = {
    ("dropbox", CLIENT_ID): "CASK_DROPBOX_ACCESS_KEY",
    ("dropbox", CLIENT_SECRET): "CASK_DROPBOX_SECRET_KEY",
    ("dropbox", ACCESS_TOKEN): "CASK_DROPBOX_TOKEN",
}
_SHORT_LIVED = "sl."
"""How Dropbox begins the access tokens that hold for four hours."""
# OpenDAL puts the values into a request as they are, so what a form or a URL gives a meaning to
# would arrive as something else.
_FIT = re.compile(r"[A-Za-z0-9._~:/@=!*-]{1,4096}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What lets a program use somebody's account. Raises BadRequest for what can't be sent."""

    service: str
    client_id: str
    client_secret: str = field(repr=False)
    refresh_token: str = field(repr=False)
    version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for name in (CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN):
            check_value(self.service, name, getattr(self, name))

    @property
    def options(self) -> dict[str, str]:
        """The options of the service, by OpenDAL's names; secrets included."""
        return {
            CLIENT_ID: self.client_id,
            CLIENT_SECRET: self.client_secret,
            REFRESH_TOKEN: self.refresh_token,
        }


def credentials_path(data: Path, service: str) -> Path:
    """Where a node with this data directory keeps its credentials of a service."""
    return data / "credentials" / f"{service}.json"


def check_value(service: str, option: str, value: str) -> None:
    """Raise BadRequest for what is no client id, secret or token. The value is not shown."""
    if not _FIT.fullmatch(value):
        what = option.replace("_", " ")
        reason = "has characters that can't be sent" if value else "is empty"
        raise BadRequest(
            f"{service}: the {what} {reason}",
            hint="Copy it as a whole, without spaces or quotes around it.",
        )


def service_options(service: str, data: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The credentials as options of OpenDAL's ``dropbox`` or ``gdrive``, secrets included.

    Taken from the environment (``OPENDAL_SERVICE_OPTION``, or Cask's ``CASK_DROPBOX_*``) if there is
    a token in it, else from the file of :func:`write_credentials`. Raises BadRequest if there is no
    token, with what to do as the hint, and if what there is can't be used.
    """
    given = {
        option: value
        for option in (CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN, ACCESS_TOKEN)
        if (value := from_environment(service, option, environ))
    }
    for option, value in given.items():
        check_value(service, option, value)
    if REFRESH_TOKEN in given:
        given.pop(ACCESS_TOKEN, None)
        _check_client(service, given)
        return given
    if ACCESS_TOKEN in given:
        return {ACCESS_TOKEN: _checked_token(service, given[ACCESS_TOKEN], environ)}
    found = read_credentials(service, data)
    if given.get(CLIENT_ID, found.client_id) != found.client_id:
        raise BadRequest(
            f"{service}: the token in {credentials_path(data, service)} is not for the app that"
            f" {_variable(service, CLIENT_ID, environ)} names",
            hint=_how(service, data),
        )
    return found.options | given


def from_environment(service: str, option: str, environ: Mapping[str, str]) -> str:
    """What the environment says of an option; empty if nothing. Tierce's name goes before Cask's."""
    return environ.get(_variable(service, option, environ), "").strip()


def read_credentials(service: str, data: Path) -> Credentials:
    """Read what ``tierce auth`` wrote. Raises BadRequest if it isn't there or can't be used."""
    path = credentials_path(data, service)
    try:
        text = read_private(path)
    except FileNotFoundError:
        raise BadRequest(
            f"{service}: there is no token, neither in the environment nor in {path}",
            hint=_how(service, data),
        ) from None
    return _decoded(service, text, path, data)


def read_private(path: Path) -> bytes:
    """Read a file with secrets, which must be for its owner alone.

    Raises FileNotFoundError, and BadRequest for one that can't be used.
    """
    try:
        # A pipe in its place must not hold up the start.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except NotADirectoryError as error:
        raise FileNotFoundError(path) from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadRequest(
            f"can't read {path}: {error.strerror}",
            hint="It must belong to the user whom the node runs as.",
        ) from error
    with open(fd, "rb") as file:
        _check_access(path, os.fstat(fd))
        return file.read(FILE_LIMIT_BYTES)


def prepare(data: Path, service: str) -> None:
    """Make the place for a service's credentials, before anybody is asked for any.

    Raises BadRequest if the directory is another user's, whose node could not read the file then.
    """
    place = credentials_path(data, service).parent
    me = os.geteuid()
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Others than root may share a directory by its group; root can write anywhere, and its
        # files can be read by root alone.
        is_mine = me != 0 or data.stat().st_uid == me
        if is_mine:
            place.mkdir(mode=0o700, exist_ok=True)
            is_mine = place.stat().st_uid == me
    except OSError as error:
        raise BadRequest(
            f"{place} can't be used: {error.strerror}",
            hint="Give the node's data directory with --data, and run this as the node's user.",
        ) from error
    if not is_mine:
        raise BadRequest(
            f"{data} belongs to another user, who could not read the credentials",
            hint="Run this as the user whom the node runs as.",
        )


def write_credentials(data: Path, credentials: Credentials) -> Path:
    """Write or replace the file, for its owner alone; durable when it returns. Returns its path.

    Raises the errors of :func:`prepare`, and TierceError if the disk fails.
    """
    prepare(data, credentials.service)
    path = credentials_path(data, credentials.service)
    text = msgspec.json.format(msgspec.json.encode(credentials)) + b"\n"
    try:
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        try:
            with open(fd, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(fd)
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        sync_directory(path.parent)
        sync_directory(data)
    except OSError as error:
        raise from_os_error(error, f"writing {path}") from error
    return path


def _decoded(service: str, text: bytes, path: Path, data: Path) -> Credentials:
    reason = ""
    try:
        found = msgspec.json.decode(text, type=Credentials)
        if (found.service, found.version) == (service, FORMAT_VERSION):
            return found
        reason = "it is of another service, or of another version of Tierce"
    except BadRequest as error:
        reason = error.message
    except ValueError as error:  # of msgspec: its words name fields and types, no values
        reason = str(error)
    raise BadRequest(f"{path} is damaged: {reason}", hint=_how(service, data))


def _check_access(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadRequest(f"{path} is not a file", hint="Remove what is there.")
    if status.st_mode & 0o077:
        raise BadRequest(
            f"{path} may be read or written by others: its mode is"
            f" {stat.S_IMODE(status.st_mode):04o}",
            hint=f"Run `chmod 600 {path}`; get new credentials if somebody may have read it.",
        )
    if status.st_uid not in (0, os.geteuid()):
        raise BadRequest(
            f"{path} belongs to another user",
            hint="It must belong to the user whom the node runs as.",
        )


def _check_client(service: str, given: Mapping[str, str]) -> None:
    for option in (CLIENT_ID, CLIENT_SECRET):
        if option not in given:
            raise BadRequest(
                f"{service}: {_name(service, REFRESH_TOKEN)} is set without"
                f" {_name(service, option)}",
                hint="Set all three, or none and use `tierce auth`.",
            )


def _checked_token(service: str, token: str, environ: Mapping[str, str]) -> str:
    if service == "dropbox" and token.startswith(_SHORT_LIVED):
        raise BadRequest(
            f"dropbox: the token in {_variable(service, ACCESS_TOKEN, environ)} holds for a few"
            " hours only, and the node would stop working then",
            hint="Unset it, and run `tierce auth dropbox`, which gets one that lasts.",
        )
    return token


def _variable(service: str, option: str, environ: Mapping[str, str]) -> str:
    """The variable that is used for an option: Cask's if Tierce's is not set and Cask's is."""
    name, of_cask = _name(service, option), _OF_CASK.get((service, option), "")
    return of_cask if not environ.get(name) and environ.get(of_cask) else name


def _name(service: str, option: str) -> str:
    return f"OPENDAL_{service}_{option}".upper()


def _how(service: str, data: Path) -> str:
    return (
        f"Run `tierce auth {service} --data {data}`, which sends you to the page where you permit it; "
        "then start the node again."
    )
