"""The numbers at ``/debug/vars``: a few of this process, under the names that Go's runtime uses."""

import gc
import os
import sys

_STATM = "/proc/self/statm"


def memory() -> dict[str, int]:
    """``Sys`` is resident memory in bytes, where the system tells it; the others are counts."""
    return {
        "Sys": _resident_bytes(),
        "HeapObjects": sys.getallocatedblocks(),
        "NumGC": sum(generation["collections"] for generation in gc.get_stats()),
    }


def _resident_bytes() -> int:
    try:
        with open(_STATM, encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0
