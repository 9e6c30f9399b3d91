"""Counting without the cost of the metrics library on every request.

To add to one of its counters takes the library a lock, and with several processes a write to a
mapped file: with three of them a request, a tenth of a small one's time. A tally adds in plain
numbers and hands the sum over now and then: each server does so every second at least, and a scrape
does so first. Tallies belong to one thread, that of the event loop.
"""

from bisect import bisect_left

from prometheus_client import Counter, Histogram

_tallies: list["CounterTally | HistogramTally"] = []


class CounterTally:
    """Stands for one counter, its labels given."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._pending = 0.0
        _tallies.append(self)

    def add(self, amount: float = 1) -> None:
        self._pending += amount

    def hand_over(self) -> None:
        if self._pending:
            self._counter.inc(self._pending)
            self._pending = 0.0


class HistogramTally:
    """Stands for one histogram, its labels given."""

    def __init__(self, histogram: Histogram) -> None:
        # The library has no public way to add many observations at once.
        self._sum = histogram._sum
        self._buckets = histogram._buckets
        self._bounds: list[float] = list(histogram._upper_bounds)
        self._pending = [0] * len(self._bounds)
        self._pending_sum = 0.0
        _tallies.append(self)

    def observe(self, amount: float) -> None:
        self._pending[bisect_left(self._bounds, amount)] += 1
        self._pending_sum += amount

    def hand_over(self) -> None:
        if not self._pending_sum:
            return
        self._sum.inc(self._pending_sum)
        self._pending_sum = 0.0
        for number, count in enumerate(self._pending):
            if count:
                self._buckets[number].inc(count)
                self._pending[number] = 0


class CounterTallies(dict[str, CounterTally]):
    """The tallies of a counter with one label, by its value; made as they are asked for."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def __missing__(self, label: str) -> CounterTally:
        tally = self[label] = CounterTally(self._counter.labels(label))
        return tally


def hand_over_all() -> None:
    """Bring the metrics up to date."""
    for tally in _tallies:
        tally.hand_over()
