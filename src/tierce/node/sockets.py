"""Listening sockets that several processes share by SO_REUSEPORT.

The kernel spreads connections over all sockets that listen on an address with SO_REUSEPORT, which
would also let two nodes share a port by accident. So the first process of a node first binds
without it, to learn whether the address is free, and then holds it with a socket that never listens.
Two nodes that start at the same moment would both find it free, as nobody listens yet. So each also
claims the address by a name that only one process of the machine can have.
"""

import errno
import socket
from typing import NamedTuple

from tierce.core.errors import BadRequest, Conflict
from tierce.core.listen import PRIVATE, Listen

WILDCARDS = ("0.0.0.0", "::")  # all addresses of this machine, and none that another could use


class Address(NamedTuple):
    """A resolved address: the family (AF_INET or AF_INET6), the numeric host, the port."""

    family: int
    host: str
    port: int


def resolve(listen: Listen) -> list[Address]:
    """All addresses of a listen setting's host. Raises BadRequest."""
    try:
        found = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise BadRequest(
            f"the host of {listen} can't be resolved: {error.strerror}",
            hint="Use an address of this machine, such as 127.0.0.1 or 0.0.0.0.",
        ) from error
    return [Address(family, str(where[0]), listen.port) for family, _, _, _, where in found]


def is_loopback(address: Address) -> bool:
    """Whether only this machine can reach it."""
    return address.host == "::1" or address.host.startswith("127.")


def bind(address: Address, *, shared: bool) -> socket.socket:
    """Bind a socket. ``shared`` lets other processes of this user bind it too. Raises OSError."""
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if address.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address.host, address.port))
    except OSError:
        sock.close()
        raise
    return sock


def _claim(address: Address) -> socket.socket:
    """Take an address's name in Linux's abstract namespace. Raises OSError if a node has it."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0tierce {address.host} {address.port}")
    except OSError:
        claim.close()
        raise
    return claim


def reserve(listen: Listen) -> tuple[Listen, list[socket.socket]]:
    """Make sure a listen address is free and keep it; returns it with port 0 replaced.

    Raises Conflict if the port is taken, BadRequest if the address can't be used.
    """
    held: list[socket.socket] = []
    try:
        for address in resolve(listen):
            wanted = address._replace(port=listen.port)
            probe = bind(wanted, shared=False)
            listen = listen._replace(port=probe.getsockname()[1])
            probe.close()
            known = wanted._replace(port=listen.port)
            held += (_claim(known), bind(known, shared=True))
    except OSError as error:
        for sock in held:
            sock.close()
        kind = Conflict if error.errno == errno.EADDRINUSE else BadRequest
        raise kind(
            f"can't listen on {listen}: {error.strerror}",
            hint="Stop what uses the port, or choose another address with "
            f"{'--private' if listen.door == PRIVATE else '--listen'}. A second node on this machine"
            " needs --data, --listen and --private of its own.",
        ) from error
    return listen, held
