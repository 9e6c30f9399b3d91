"""Limits on requests: by address and by token, and whose word on an address counts."""

import ipaddress

import pytest

from tierce.core.errors import TooManyRequests
from tierce.node.rate_table import RateTable
from tierce.service.rates import Limits, Rates, caller_of, network_of

PROXIES = (ipaddress.ip_network("10.0.0.0/8"),)


def rates(by_address: float = 0.0, by_token: float = 0.0, *, burst_seconds: float = 1.0) -> Rates:
    return Rates(
        Limits(by_address, by_token, PROXIES),
        RateTable.open(None),
        burst_seconds=burst_seconds,
        clock=lambda: 1000.0,
    )


def test_an_address_gets_its_burst_and_then_has_to_wait() -> None:
    found = rates(by_address=4.0)
    for _ in range(4):
        found.check("192.0.2.1", None, None)
    with pytest.raises(TooManyRequests, match="this address sent more than the 4 req") as caught:
        found.check("192.0.2.1", None, None)
    assert caught.value.retry_after_seconds == pytest.approx(0.25)
    found.check("192.0.2.2", None, None)


def test_a_rate_below_one_lets_one_request_in_at_a_time() -> None:
    found = rates(by_address=0.1)
    found.check("192.0.2.1", None, None)
    with pytest.raises(TooManyRequests) as caught:
        found.check("192.0.2.1", None, None)
    assert caught.value.retry_after_seconds == pytest.approx(10.0)


def test_a_token_counts_from_whatever_address() -> None:
    found = rates(by_token=1.0)
    found.check("192.0.2.1", None, "Bearer one")
    with pytest.raises(TooManyRequests, match="this token"):
        found.check("192.0.2.2", None, "bearer  one")
    found.check("192.0.2.1", None, "Bearer other")
    for _ in range(20):
        found.check("192.0.2.1", None, None)


@pytest.mark.parametrize(
    ("remote", "forwarded", "caller"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("10.1.1.1", "203.0.113.9", "203.0.113.9"),
        ("10.1.1.1", "198.51.100.7, 203.0.113.9", "203.0.113.9"),
        ("10.1.1.1", "203.0.113.9, 10.2.2.2", "203.0.113.9"),
        ("::ffff:10.1.1.1", "203.0.113.9", "203.0.113.9"),
        ("10.1.1.1", "", "10.1.1.1"),
        ("10.1.1.1", "unknown", "unknown"),
    ],
)
def test_only_proxies_are_believed(remote: str, forwarded: str | None, caller: str) -> None:
    assert caller_of(remote, forwarded, PROXIES) == caller


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
    ],
)
def test_an_ipv6_network_counts_as_one(address: str, network: str) -> None:
    assert network_of(address) == network
