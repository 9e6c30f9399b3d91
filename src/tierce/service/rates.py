"""How many requests a second a caller may send: by its address, and by its token.

What a token is, access.py knows; here its text is only hashed, known or not, so that many unknown
ones are held back by the caller's address. Neither limit is there unless it is set.
"""

import ipaddress
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tierce.core.errors import TooManyRequests
from tierce.core.limits import RATE_BURST_SECONDS
from tierce.node.rate_table import RateTable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_IPV6_PREFIX_BITS = 64


class Limits(NamedTuple):
    """Requests a second, 0 for no limit, and the proxies whose word on the caller's address counts."""

    by_address: float = 0.0
    by_token: float = 0.0
    proxies: Sequence[Network] = ()


class Rates:
    """Counts the requests of all public doors. ``clock`` is the monotonic one, in seconds."""

    def __init__(
        self,
        limits: Limits,
        table: RateTable,
        *,
        burst_seconds: float = RATE_BURST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._table = table
        self._burst_seconds = burst_seconds
        self._clock = clock

    def check(self, remote: str | None, forwarded: str | None, authorization: str | None) -> None:
        """Count a request. Raises TooManyRequests for one that comes too soon.

        ``remote`` is the address that the connection comes from, ``forwarded`` the header
        X-Forwarded-For, which counts from proxies only.
        """
        if self._limits.by_address and remote is not None:
            caller = network_of(caller_of(remote, forwarded, self._limits.proxies))
            self._take(b"a" + caller.encode("utf-8", "replace"), self._limits.by_address, "address")
        if self._limits.by_token and authorization is not None:
            caller = authorization.partition(" ")[2].strip()
            self._take(b"t" + caller.encode("utf-8", "replace"), self._limits.by_token, "token")

    def _take(self, caller: bytes, per_second: float, what: str) -> None:
        interval = 1 / per_second
        # However low the rate, one request at a time is let in.
        burst = max(0.0, self._burst_seconds - interval)
        wait = self._table.take(caller, self._clock(), interval, burst)
        if wait > 0:
            raise TooManyRequests(
                f"this {what} sent more than the {per_second:g} requests a second that are allowed",
                hint=f"Wait {wait:.1f} s, or ask the operator for a higher limit.",
                retry_after_seconds=wait,
            )


def caller_of(remote: str, forwarded: str | None, proxies: Sequence[Network]) -> str:
    """The address that a request comes from: the last one named that is no proxy of ours."""
    caller = remote
    hops = [each.strip() for each in (forwarded or "").split(",") if each.strip()]
    while hops and any(_is_in(caller, each) for each in proxies):
        caller = hops.pop()
    return caller


def network_of(address: str) -> str:
    """What is counted as one caller: an IPv4 address, or the IPv6 network that one customer has."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _IPV6_PREFIX_BITS), strict=False))


def _is_in(address: str, network: Network) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if found.version == 6 and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found in network
