"""Load by wrk, and what it measured."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

WRK = shutil.which("wrk") or "wrk"

_GET = """
local paths = {{}}
for line in io.lines("{list}") do paths[#paths + 1] = line end
local at = {start}
request = function()
  at = at % #paths + 1
  return wrk.format("GET", paths[at])
end
"""

# Each body is new: a number that is never used again, then bytes that don't matter.
_POST = """
local filler = string.rep("tierce benchmark ", 400)
local number = 0
local run = "{run}"
request = function()
  number = number + 1
  local head = run .. ":" .. number .. ":"
  return wrk.format("POST", "{path}", nil, (head .. filler):sub(1, {size}))
end
"""


class Load(NamedTuple):
    """Requests a second, bytes a second, latencies in milliseconds, answers that were no success."""

    rate: float
    bytes_rate: float
    p50_ms: float
    p99_ms: float
    failed: int


def get(base: str, paths: list[str], work: Path, *, connections: int, seconds: int) -> Load:
    """Fetch paths in turn over keep-alive connections."""
    listed = work / "paths.txt"
    listed.write_text("\n".join(paths))
    return _wrk(base, _GET.format(list=listed, start=0), work, connections, seconds)


def post(
    base: str, path: str, work: Path, *, size: int, run: str, connections: int, seconds: int
) -> Load:
    """Send bodies of ``size`` bytes, each different from all others."""
    script = _POST.format(run=run, path=path, size=size)
    return _wrk(base, script, work, connections, seconds)


def _wrk(base: str, script: str, work: Path, connections: int, seconds: int) -> Load:
    file = work / "load.lua"
    file.write_text(script)
    command = [
        WRK, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "20s",
        "-s", str(file), base,
    ]  # fmt: skip
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text
    )
    return Load(
        rate=float(_find(r"Requests/sec:\s+([\d.]+)", text)),
        bytes_rate=_bytes(_find(r"Transfer/sec:\s+([\d.]+\w+)", text)),
        p50_ms=_milliseconds(_find(r"50%\s+([\d.]+\w+)", text)),
        p99_ms=_milliseconds(_find(r"99%\s+([\d.]+\w+)", text)),
        failed=int(failed[1]) if failed else sum(map(int, errors.groups())) if errors else 0,
    )


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, f"wrk said:\n{text}"
    return match[1]


def _milliseconds(text: str) -> float:
    for unit, factor in (("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise ValueError(text)


def _bytes(text: str) -> float:
    for unit, factor in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10), ("B", 1)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise ValueError(text)
