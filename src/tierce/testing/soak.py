"""Runs scenarios by the thousand: ``python -m tierce.testing.soak --seeds 1000 --first 0``.

Each failing seed is told with the command that runs it alone, and makes the exit code 1. Run alone
with ``--trace``, a seed writes down everything that happened, with the production's log in between.
``--names`` has named objects (name_scenarios.py) in place of blobs only, ``--stores`` a store in the
cloud (store_scenarios.py).
"""

import argparse
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TextIO, TypeAlias

from tierce.testing.name_scenarios import run_name_seed
from tierce.testing.scenarios import Failed, Report, run_seed
from tierce.testing.store_scenarios import run_store_seed

PROGRESS_SECONDS = 10.0
Kind: TypeAlias = Callable[[int, TextIO | None], Report]


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tierce.testing.soak", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one only")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--names", action="store_true", help="the scenarios of named objects")
    kinds.add_argument("--stores", action="store_true", help="those of a store in the cloud")
    parser.add_argument("--trace", action="store_true", help="with --seed: tell all that happens")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes to use")
    given = parser.parse_args(arguments)
    kind = run_name_seed if given.names else run_store_seed if given.stores else run_seed
    if given.seed is not None:
        return _run_alone(given.seed, given.trace, kind)
    return _run_many(range(given.first, given.first + given.seeds), given.jobs, kind)


def _run_alone(seed: int, trace: bool, kind: Kind) -> int:
    if trace:
        logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="    %(message)s")
    try:
        report = kind(seed, sys.stdout if trace else None)
    except Failed as failure:
        _say(f"FAILED {failure}")
        return 1
    _say(
        f"seed {report.seed}: {report.simulated_seconds:.0f} simulated seconds,"
        f" trace {report.trace_digest}"
    )
    for name, number in report.counts.items():
        _say(f"{number:8} {name}")
    return 0


def _run_many(seeds: range, jobs: int, kind: Kind) -> int:
    started = told = time.monotonic()
    failed: list[int] = []
    simulated = 0.0
    counts: Counter[str] = Counter()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for number, (seed, result) in enumerate(
            pool.map(partial(_try, kind), seeds, chunksize=4), 1
        ):
            if isinstance(result, str):
                failed.append(seed)
                _say(f"FAILED {result}")
            else:
                simulated += result.simulated_seconds
                counts.update(result.counts)
            if time.monotonic() - told >= PROGRESS_SECONDS or number == len(seeds):
                told = time.monotonic()
                _say(
                    f"{number} of {len(seeds)} seeds, {len(failed)} failed,"
                    f" {simulated / 3600:.1f} simulated hours in {told - started:.0f} s"
                )
    for name, total in sorted(counts.items()):
        _say(f"{total:8} {name}")
    if failed:
        _say(f"failed: {' '.join(map(str, failed))}")
    return 1 if failed else 0


def _try(kind: Kind, seed: int) -> tuple[int, Report | str]:
    try:
        return seed, kind(seed, None)
    except Failed as failure:
        return seed, str(failure)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 (this is a command)


if __name__ == "__main__":
    sys.exit(main())
