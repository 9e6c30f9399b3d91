"""The ring is Cask's where it must be, even, and moves little; zones part the owners."""

import random
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierce.cluster.ring import Ring, point
from tierce.core.digest import Digest
from tierce.core.limits import RING_POINTS

A = "111b1f38-4a30-4bc1-9341-ea0a1c7976e2"
B = "ead52d6c-f423-4c0a-a762-37bacac88d4f"
C = "f864ab85-2cd1-4cc7-a541-3e34ec6fc18f"
D = "53a5e5f2-9de4-4e72-a71e-fcc8c4e4a03e"
NAMES = {A: "A", B: "B", C: "C", D: "D"}

# Recorded of Cask: key, order of all four, order without D.
RECORDED = [
    ("0" * 40, "DABC", "ABC"),
    ("016e48d0b5f07f270368a1876f617f3f4ab1b86d", "ABCD", "ABC"),
    ("4" + "0" * 39, "ABCD", "ABC"),
    ("8" + "0" * 39, "CBDA", "CBA"),
    ("f" * 40, "DABC", "ABC"),
    ("bec6a3ef4770a51ba1feb4d41e7348ab43ac119a", "DABC", "ABC"),
    ("9c760b1252e153ca044d0a1fc66328708fb1a698", "CDBA", "CBA"),
    ("da39a3ee5e6b4b0d3255bfef95601890afd80709", "BADC", "BAC"),
]
DIGESTS = [Digest.of(str(number).encode()) for number in range(4000)]

ids = st.lists(st.uuids().map(str), min_size=10, max_size=10, unique=True)


def ring(nodes: Iterable[str], points: int = RING_POINTS) -> Ring:
    return Ring(((node, 1.0, "") for node in nodes), points)


def naive_order(nodes: list[str], digest: Digest, points: int) -> list[str]:
    """Cask's rule in obvious lines, on strings (wire sheet, section 6)."""
    placed = sorted((point(node, i).hex(), node) for node in nodes for i in range(points))
    key = digest.hex[:40]
    after = [each for each in placed if each[0] > key] + [each for each in placed if each[0] <= key]
    return list(dict.fromkeys(node for _, node in after))


def test_points_are_those_of_cask() -> None:
    assert point(A, 0).hex() == "26181c52f16b4413aadc1dc9ef0ce07a8e0a2b90"
    assert point(D, 1).hex() == "016e48d0b5f07f270368a1876f617f3f4ab1b86d"
    assert point(A, 9).hex() == "fabf84829387d25206cba9db1549553c3df73b9c"


@pytest.mark.parametrize(("digits", "four", "three"), RECORDED)
def test_order_is_that_of_cask(digits: str, four: str, three: str) -> None:
    digest = Digest.parse(f"sha1:{digits}")
    assert "".join(NAMES[each] for each in ring([A, B, C, D], 16).order(digest)) == four
    assert "".join(NAMES[each] for each in ring([A, B, C], 16).order(digest)) == three


@given(st.lists(st.uuids().map(str), min_size=1, max_size=6, unique=True), st.binary(max_size=8))
def test_order_is_that_of_the_naive_rule(nodes: list[str], data: bytes) -> None:
    for algorithm in ("sha1", "blake3", "sha512"):
        digest = Digest.of(data, algorithm)
        assert ring(nodes, 8).order(digest) == naive_order(nodes, digest, 8)
        assert ring(nodes, 8).order(digest, 2) == naive_order(nodes, digest, 8)[:2]


def shares(nodes: list[str], copies: int) -> dict[str, float]:
    """The part of all positions that each node owns: exact, arc by arc."""
    whole = ring(nodes)
    positions = sorted(point(node, i) for node in nodes for i in range(RING_POINTS))
    owned = dict.fromkeys(nodes, 0)
    for start, end in zip(positions, [*positions[1:], positions[0]], strict=True):
        length = (int.from_bytes(end) - int.from_bytes(start)) % 2**160
        for owner in whole.order(Digest("sha1", start), copies):
            owned[owner] += length
    return {node: length / 2**160 for node, length in owned.items()}


@settings(derandomize=True)
@given(ids)
def test_the_fullest_of_ten_nodes_holds_at_most_a_quarter_above_the_mean(nodes: list[str]) -> None:
    """Of three copies. Chance decides, so the same hundred clusters are looked at every time."""
    assert max(shares(nodes, 3).values()) <= 1.25 * 3 / len(nodes)


@settings(derandomize=True)
@given(ids)
def test_an_added_node_takes_its_share_and_nothing_moves_between_old_ones(nodes: list[str]) -> None:
    before, after = ring(nodes[:9]), ring(nodes)
    moved = 0
    for digest in DIGESTS:
        old, new = before.order(digest, 1), after.order(digest, 1)
        assert new == old or new == [nodes[9]]
        moved += new != old
    share = moved / len(DIGESTS)
    assert 0.5 / 10 <= share <= 1.7 / 10


@given(ids)
def test_other_owners_stay_when_a_node_is_added(nodes: list[str]) -> None:
    before, after = ring(nodes[:9]), ring(nodes)
    for digest in DIGESTS[:500]:
        stayed = [each for each in after.order(digest, 3) if each != nodes[9]]
        assert stayed == before.order(digest, 3)[: len(stayed)]


def test_a_node_of_twice_the_weight_gets_twice_the_share() -> None:
    chance = random.Random(1)
    found = []
    for _ in range(20):
        nodes = [f"{chance.getrandbits(128):032x}" for _ in range(10)]
        weighted = Ring(((each, 2.0 if each == nodes[0] else 1.0, "") for each in nodes), 128)
        counts = Counter(weighted.order(digest, 1)[0] for digest in DIGESTS)
        found.append(counts[nodes[0]] / len(DIGESTS))
    assert sum(found) / len(found) == pytest.approx(2 / 11, rel=0.1)


@given(ids, st.integers(0, 2**32))
def test_with_three_zones_no_two_of_three_owners_share_one(nodes: list[str], seed: int) -> None:
    chance = random.Random(seed)
    zones = {each: chance.choice("xyz") for each in nodes}
    zones |= dict(zip(nodes, "xyz", strict=False))
    zoned = Ring(((each, 1.0, zones[each]) for each in nodes), 32)
    for digest in DIGESTS[:100]:
        order = zoned.order(digest)
        assert sorted(order) == sorted(nodes)
        assert {zones[each] for each in order[:3]} == {"x", "y", "z"}
        assert order[:5] == zoned.order(digest, 5)


@given(ids, st.integers(0, 2**32))
def test_owners_are_spread_over_zones_as_evenly_as_can_be(nodes: list[str], seed: int) -> None:
    chance = random.Random(seed)
    zones = {each: chance.choice("xy") for each in nodes}
    zoned = Ring(((each, 1.0, zones[each]) for each in nodes), 16)
    in_zone = Counter(zones.values())
    for digest in DIGESTS[:50]:
        taken = Counter(zones[each] for each in zoned.order(digest, 4))
        for zone, count in taken.items():
            others = [taken[other] for other in in_zone if taken[other] < in_zone[other]]
            assert all(count <= other + 1 for other in others), (zone, taken)


def test_an_empty_ring_places_nothing() -> None:
    assert ring([]).order(DIGESTS[0]) == []
    assert len(ring([])) == 0
