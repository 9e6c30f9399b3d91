"""A listen address: which door answers where, written ``DOOR=HOST:PORT``."""

import ipaddress
import re
from typing import NamedTuple

from tierce.core.errors import BadRequest
from tierce.core.wording import did_you_mean, quoted

DOORS = ("native", "cask", "objstore", "sos-upload", "sos-download", "sos-blob", "dtfc")
PRIVATE = "private"

_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_HOST_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?", re.ASCII)
_FORM_HINT = "Write DOOR=HOST:PORT, such as native=127.0.0.1:7070 or native=[::1]:7070."


class Listen(NamedTuple):
    """Where a door listens. ``host`` is without brackets; port 0 picks a free one."""

    door: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Listen":
        """Read ``DOOR=HOST:PORT``. Raises BadRequest, with a hint, for anything else."""
        door, equals, address = text.strip().partition("=")
        if not equals or ":" not in address:
            raise BadRequest(f"{quoted(text)} is not a listen address", hint=_FORM_HINT)
        if door not in DOORS:
            doors = f"The doors are {', '.join(DOORS)}."
            raise BadRequest(
                f"{quoted(door)} in {quoted(text)} is not a door",
                hint=did_you_mean(door, DOORS, doors),
            )
        return cls(door, *_place(address, text))

    @classmethod
    def private(cls, text: str) -> "Listen":
        """Read ``HOST:PORT``, where the door for other nodes listens. Raises BadRequest."""
        address = text.strip()
        if "=" in address or ":" not in address:
            raise BadRequest(
                f"{quoted(text)} is not an address", hint="Write HOST:PORT, as in 10.0.0.5:7071."
            )
        return cls(PRIVATE, *_place(address, text))

    @property
    def address(self) -> str:
        """``HOST:PORT``, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.door}={self.address}"


def _place(address: str, text: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise BadRequest(
            f"{quoted(port)} in {quoted(text)} is not a port",
            hint="Write a number from 0 to 65535, where 0 picks a free port.",
        )
    return _host(host, text), int(port)


def _host(host: str, text: str) -> str:
    if not host:
        raise BadRequest(
            f"{quoted(text)} names no host",
            hint="Write 127.0.0.1 for this machine only, or 0.0.0.0 for all its addresses.",
        )
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise BadRequest(
                f"{quoted(host)} in {quoted(text)} is not an IPv6 address", hint=_FORM_HINT
            ) from None
    if ":" in host:
        raise BadRequest(
            f"the IPv6 address in {quoted(text)} has no brackets",
            hint="Write it as in native=[::1]:7070.",
        )
    if not _HOST_NAME.fullmatch(host):
        raise BadRequest(f"{quoted(host)} in {quoted(text)} is not a host", hint=_FORM_HINT)
    return host
