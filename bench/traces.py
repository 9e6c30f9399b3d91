"""Requests for the simulation of eviction policies: made from a fixed seed, the same each time.

A trace is a list of keys, in the order in which they are asked for, and the size in bytes of each key.
Where sizes are the same, hits in objects and in bytes are the same too; the traces with "sizes" in their
name have log-normal ones, with a median of 64 KiB and a mean of about 5 times as much.
"""

import random
from collections import Counter
from itertools import accumulate
from typing import NamedTuple

SEED = 20240416
OBJECTS_COUNT = 20_000
REQUESTS_COUNT = 100_000
SIZE_BYTES = 64 << 10
SIZE_SIGMA = 1.8
SIZE_MAX_BYTES = 64 << 20


class Trace(NamedTuple):
    """Requests in order, and the sizes of all their keys."""

    name: str
    keys: list[int]
    sizes: dict[int, int]

    @property
    def footprint_bytes(self) -> int:
        return sum(self.sizes.values())

    @property
    def once(self) -> float:
        """The share of objects that are asked for once."""
        counts = Counter(self.keys)
        return sum(1 for count in counts.values() if count == 1) / len(counts)


def all_traces() -> list[Trace]:
    """The traces of the table, in its order."""
    hot = range(OBJECTS_COUNT)
    cold = range(OBJECTS_COUNT, 2 * OBJECTS_COUNT)
    half = REQUESTS_COUNT // 2
    around = _zipf(1.0, half, seed=1), _zipf(1.0, half, seed=2)
    wonders = _wonders(0.6)
    return [
        *(_even(f"zipf {alpha}", _zipf(alpha, REQUESTS_COUNT)) for alpha in (0.6, 0.8, 1.0, 1.2)),
        _even("zipf 1.0, all objects read once in the midst", [*around[0], *hot, *around[1]]),
        _even("zipf 1.0, as many others read once in the midst", [*around[0], *cold, *around[1]]),
        _even(
            "zipf 1.0, a scan of 5,000 others after each 10,000", _with_scans(1.0, 10_000, 5_000)
        ),
        _even("loop over 10,000 objects", [*range(REQUESTS_COUNT // 10)] * 10),
        _even("shifting working set", _shifting()),
        _even("60 % of objects seen once", wonders),
        _even("half of all requests to new objects", _new_objects(0.5)),
        _even("each object twice, 4,000 requests apart", _twice(4_000)),
        _even("each object twice, zipf 1.0 in between", _twice_with_zipf(4_000)),
        _even("put, then read while young", _young()),
        _mixed("zipf 0.8, sizes", _zipf(0.8, REQUESTS_COUNT)),
        _mixed("zipf 1.0, scan in the midst, sizes", [*around[0], *cold, *around[1]]),
        _mixed("60 % of objects seen once, sizes", wonders),
        _mixed("put, then read while young, sizes", _young()),
    ]


def _even(name: str, keys: list[int]) -> Trace:
    return Trace(name, keys, dict.fromkeys(keys, SIZE_BYTES))


def _mixed(name: str, keys: list[int]) -> Trace:
    chance = random.Random(SEED)
    sizes = {
        key: min(SIZE_MAX_BYTES, max(1, round(SIZE_BYTES * chance.lognormvariate(0, SIZE_SIGMA))))
        for key in sorted(set(keys))
    }
    return Trace(name, keys, sizes)


def _zipf(alpha: float, count: int, objects: int = OBJECTS_COUNT, seed: int = 0) -> list[int]:
    """Requests where the object of rank n is asked for in proportion to n to the power of -alpha."""
    cumulated = list(accumulate((rank + 1) ** -alpha for rank in range(objects)))
    return random.Random(SEED + seed).choices(range(objects), cum_weights=cumulated, k=count)


def _with_scans(alpha: float, every: int, scanned: int) -> list[int]:
    keys: list[int] = []
    fresh = OBJECTS_COUNT
    asked = _zipf(alpha, REQUESTS_COUNT)
    for start in range(0, len(asked), every):
        keys += asked[start : start + every]
        keys += range(fresh, fresh + scanned)
        fresh += scanned
    return keys


def _shifting() -> list[int]:
    """Zipf 0.8 over 4,000 objects; with every 10,000 requests a half of them is replaced."""
    keys: list[int] = []
    chance = random.Random(SEED)
    working = list(range(4_000))
    fresh = len(working)
    for phase in range(REQUESTS_COUNT // 10_000):
        keys += (working[rank] for rank in _zipf(0.8, 10_000, len(working), seed=phase))
        chance.shuffle(working)
        half = len(working) // 2
        working[:half] = range(fresh, fresh + half)
        fresh += half
        chance.shuffle(working)
    return keys


def _wonders(share: float) -> list[int]:
    """Zipf 0.8 over some objects, mixed with others that are seen once: a share of all objects."""
    repeated = _zipf(0.8, REQUESTS_COUNT - OBJECTS_COUNT, OBJECTS_COUNT // 2)
    counts = Counter(repeated)
    single = sum(1 for count in counts.values() if count == 1)
    # single + new = share * (seen + new)
    new = round((share * len(counts) - single) / (1 - share))
    keys = [*repeated, *range(OBJECTS_COUNT, OBJECTS_COUNT + new)]
    random.Random(SEED).shuffle(keys)
    return keys


def _new_objects(share: float) -> list[int]:
    """Zipf 0.8 over 20,000 objects; a share of all requests is to objects never seen before."""
    chance = random.Random(SEED)
    return [
        OBJECTS_COUNT + number if chance.random() < share else key
        for number, key in enumerate(_zipf(0.8, REQUESTS_COUNT))
    ]


def _twice(apart: int) -> list[int]:
    """Each object is asked for twice, ``apart`` objects lying between: nothing is hot."""
    keys: list[int] = []
    for number in range(REQUESTS_COUNT // 2):
        keys.append(number)
        if number >= apart // 2:
            keys.append(number - apart // 2)
    return keys


def _twice_with_zipf(apart: int) -> list[int]:
    """The first half of _twice, taking turns with zipf 1.0: some objects are hot, in a steady flow."""
    twice = _twice(apart)[: REQUESTS_COUNT // 2]
    pairs = zip(twice, _zipf(1.0, len(twice)), strict=True)
    return [key for pair in pairs for key in (OBJECTS_COUNT + pair[0], pair[1])]


def _young() -> list[int]:
    """A fifth of requests puts a new object; the others read one, the likelier the younger it is.

    The object of age n (in puts) is read in proportion to n to the power of -1.
    """
    chance = random.Random(SEED)
    weights = list(accumulate(1 / (age + 1) for age in range(OBJECTS_COUNT)))
    ages = chance.choices(range(OBJECTS_COUNT), cum_weights=weights, k=REQUESTS_COUNT)
    keys: list[int] = []
    last = 0
    for age in ages:
        if chance.random() < 0.2:
            last += 1
            keys.append(last)
        else:
            keys.append(max(0, last - age))
    return keys
