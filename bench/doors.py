"""Measurements of the doors that speak for other systems, beside the native door of the same node.

Each way in and out takes turns with the native door's own, by the same load and with the same digest
algorithm; where a door keeps a name with each file, small ones also with the native door's named
objects. The ratio is what the door itself costs. On a machine with other work the CPU time of the node
per request says more than the rates, so it stands beside them.
"""

import hashlib
import http.client
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from bench import load, objects, servers

AIM = 0.8
MIB = 1 << 20
LARGE_BYTES = 64 * MIB
STORED_COUNT = 5_000
LARGE_STORED_COUNT = 2
CLIENTS_COUNT = 8
DOORS = ("native", "objstore", "cask", "dtfc", "sos-upload", "sos-download", "sos-blob")

# More digests than bodies are ever sent: a load that runs out of them fails.
_DIGESTS_PER_SECOND = 20_000
_FORM_HEAD = '--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
_FORM_TAIL = "\r\n--b--\r\n"
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Way(NamedTuple):
    """A way in and out of the node: ``put`` and ``get`` are DOOR METHOD PATH, ``header`` NAME: VALUE.

    In these {key} stands for a new ULID, {digest} for the body's digest in hex. ``drop`` removes the
    name, if there is one; the bytes go by the native door. ``beside`` are the ways that it is
    compared with, none for those of the native door.
    """

    what: str
    algorithm: str
    put: str
    get: str
    header: str = ""
    is_form: bool = False
    drop: str = ""
    beside: Sequence[str] = ()


WAYS = (
    Way(
        "native blobs (SHA-1)", "sha1",
        "native POST /v1/blobs?algorithm=sha1", "native GET /v1/blobs/sha1:{digest}",
    ),
    Way(
        "sos-upload, sos-download", "sha1",
        "sos-upload POST /upload", "sos-download GET /fetch/{digest}",
        beside=("native blobs (SHA-1)",),
    ),
    Way(
        "sos-blob", "sha1",
        "sos-blob POST /blob/{digest}", "sos-blob GET /blob/{digest}",
        beside=("native blobs (SHA-1)",),
    ),
    Way(
        "cask", "sha1",
        "cask POST /upload/", "cask GET /file/sha1:{digest}/",
        header="Content-Type: multipart/form-data; boundary=b", is_form=True,
        beside=("native blobs (SHA-1)",),
    ),
    Way(
        "native blobs (SHA-512)", "sha512",
        "native POST /v1/blobs?algorithm=sha512", "native GET /v1/blobs/sha512:{digest}",
    ),
    Way(
        "dtfc", "sha512",
        "dtfc PUT /{key}.jpg", "dtfc GET /{digest}", drop="dtfc DELETE /{digest}",
        beside=("native blobs (SHA-512)", "native objects"),
    ),
    Way(
        "native objects", "blake3",
        "native PUT /v1/buckets/bench/objects/{key}", "native GET /v1/buckets/bench/objects/{key}",
        drop="native DELETE /v1/buckets/bench/objects/{key}",
    ),
    Way(
        "objstore", "blake3",
        "objstore POST /api/v1/put", "objstore GET /api/v1/get/{key}",
        header="X-Meta-ID: {key}", drop="objstore POST /api/v1/delete/{key}",
        beside=("native objects",),
    ),
)  # fmt: skip


class Figure(NamedTuple):
    """A line of the table. Rates are in ``unit``; ``ratio`` is the median of those of each round.

    ``cpu_ms`` is the node's CPU time of a request, in milliseconds.
    """

    what: str
    beside: str
    unit: str
    rate: float
    reference: float
    ratio: float
    cpu_ms: float
    reference_cpu_ms: float


class Run(NamedTuple):
    """What a load measured: its rate, its requests, and the node's CPU time for all of them."""

    rate: float
    requests: float
    cpu_seconds: float


Runner = Callable[[], Run]
Addresses = dict[str, str]


def put_doors(work: Path, pairs: int, seconds: int) -> Iterator[Figure]:
    """Durable PUT of 4 KiB, new each, 32 connections."""
    seeds = iter(random.SystemRandom().sample(range(1 << 31), 100_000))
    for workers in (1, 2):
        with servers.node(work / f"data-{workers}", workers=workers, doors=DOORS) as addresses:
            runners = {way.what: _small_put(way, addresses, work, seeds, seconds) for way in WAYS}
            yield from _in_turn(f"PUT 4 KiB, {workers} worker(s)", runners, pairs)


def get_doors(work: Path, pairs: int, seconds: int) -> Iterator[Figure]:
    """GET of 5,000 different bodies of 4 KiB, 32 connections."""
    for workers in (1, 2):
        with servers.node(work / f"data-{workers}", workers=workers, doors=DOORS) as addresses:
            runners = {
                way.what: _get(way, addresses, work, seconds, STORED_COUNT, objects.SIZE_BYTES)
                for way in WAYS
            }
            yield from _in_turn(f"GET 4 KiB, {workers} worker(s)", runners, pairs)


def put_doors_large(work: Path, pairs: int, seconds: int) -> Iterator[Figure]:
    """Durable PUT of 64 MiB, one connection; each is removed before the next."""
    del seconds  # a fixed number of bodies, not a time
    content = bytearray(os.urandom(LARGE_BYTES))
    for workers in (1, 2):
        with servers.node(work / f"data-{workers}", workers=workers, doors=DOORS) as addresses:
            runners: dict[str, Runner] = {
                way.what: partial(_large_put, way, addresses, content) for way in WAYS
            }
            what = f"PUT 64 MiB, {workers} worker(s)"
            yield from _in_turn(what, runners, 2 * pairs + 1, is_large=True)


def get_doors_large(work: Path, pairs: int, seconds: int) -> Iterator[Figure]:
    """GET of 64 MiB, 2 connections."""
    for workers in (1, 2):
        with servers.node(work / f"data-{workers}", workers=workers, doors=DOORS) as addresses:
            runners = {
                way.what: _get(way, addresses, work, seconds, LARGE_STORED_COUNT, LARGE_BYTES)
                for way in WAYS
            }
            what = f"GET 64 MiB, {workers} worker(s)"
            yield from _in_turn(what, runners, pairs, is_large=True)


def line(figure: Figure) -> str:
    """A row of the table."""
    verdict = "reached" if figure.ratio >= AIM else "MISSED"
    cpu = f"CPU {figure.cpu_ms:,.3f} / {figure.reference_cpu_ms:,.3f} ms"
    return (
        f"| {figure.what} ({cpu}) | {figure.rate:,.0f}{figure.unit} |"
        f" {figure.beside}: {figure.reference:,.0f}{figure.unit} | {figure.ratio:.2f} |"
        f" {AIM:.2f} | {verdict} |"
    )


def report(figures: Sequence[Figure]) -> list[str]:
    """The part of RESULTS.md about doors."""
    return [
        "",
        "# Measured speed of the doors",
        "",
        "One node; each door and the native one take turns. New contents for each PUT; those of 64 MiB",
        "are removed before the next. CPU is the node's own time for a request, of the door and of the",
        "native one.",
        "",
        "| measured | door | native in the same run | ratio | aim | |",
        "|---|---|---|---|---|---|",
        *map(line, figures),
        "",
    ]


def _in_turn(
    what: str, runners: dict[str, Runner], rounds_count: int, *, is_large: bool = False
) -> Iterator[Figure]:
    """Run all in turn, and compare each door's way with those beside it, round by round."""
    unit = " MiB/s" if is_large else "/s"
    for each in runners.values():
        each()  # what is done for the first time counts for nobody
    rounds = [{name: run() for name, run in runners.items()} for _ in range(rounds_count)]
    algorithms = {way.what: way.algorithm for way in WAYS}
    for way in WAYS:
        for beside in way.beside:
            # Of a large body the digest is most of the work.
            if is_large and algorithms[beside] != way.algorithm:
                continue
            mine, others = ([each[name] for each in rounds] for name in (way.what, beside))
            yield Figure(
                f"{way.what}: {what}",
                beside,
                unit,
                statistics.median(each.rate for each in mine),
                statistics.median(each.rate for each in others),
                statistics.median(
                    one.rate / other.rate for one, other in zip(mine, others, strict=True)
                ),
                _cpu_ms(mine),
                _cpu_ms(others),
            )


def _small_put(
    way: Way, addresses: Addresses, work: Path, seeds: Iterator[int], seconds: int
) -> Runner:
    door, method, path = way.put.split(" ")
    listed = work / "digests.txt"
    form = f"body = {_lua(_FORM_HEAD)} .. body .. {_lua(_FORM_TAIL)}\n  " if way.is_form else ""
    name, _, value = way.header.partition(": ")
    header = f"headers[{_lua(name)}] = {_lua(value)}\n  " if name else ""
    digests = ""
    if "{digest}" in way.put:
        digests = (
            "if not digests then digests = {} "
            f"for line in io.lines({_lua(str(listed))}) do digests[#digests + 1] = line end end\n  "
        )
    send = f"{digests}{form}{header}return wrk.format({_lua(method)}, {_lua(path)}, headers, body)"

    def run() -> Run:
        seed = next(seeds)
        if digests:
            listed.write_text("\n".join(_digests(way.algorithm, seed, seconds)))
        before = _cpu_seconds()
        found = objects.put(f"http://{addresses[door]}", send, work, seed, seconds)
        assert not found.failed, (way.what, found)
        return Run(found.rate, found.rate * seconds, _cpu_seconds() - before)

    return run


def _large_put(way: Way, addresses: Addresses, content: bytearray) -> Run:
    """Put ``content`` with another start, and remove it."""
    content[:8] = random.randbytes(8)
    body = bytes(content)
    digest, key = _digest(way.algorithm, body), objects.key()
    before = _cpu_seconds()
    seconds = _store_one(way, addresses, body, digest, key)
    spent = _cpu_seconds() - before
    removals = [way.drop, "native DELETE /v1/blobs/{algorithm}:{digest}"]
    for each in filter(None, removals):
        door, method, path = _filled(each, way.algorithm, digest, key).split(" ")
        _ask(addresses[door], method, path)
    return Run(len(body) / MIB / seconds, 1, spent)


def _get(way: Way, addresses: Addresses, work: Path, seconds: int, count: int, size: int) -> Runner:
    """Store so many random bodies, and return what reads them in turn."""

    def store(_: int) -> str:
        body = random.randbytes(size)
        digest, key = _digest(way.algorithm, body), objects.key()
        _store_one(way, addresses, body, digest, key)
        return _filled(way.get, way.algorithm, digest, key).split(" ")[2]

    with ThreadPoolExecutor(CLIENTS_COUNT) as pool:
        paths = list(pool.map(store, range(count)))
    door = way.get.split(" ")[0]
    is_large = size >= MIB

    def run() -> Run:
        before = _cpu_seconds()
        found = load.get(
            f"http://{addresses[door]}", paths, work,
            connections=2 if is_large else objects.CONNECTIONS_COUNT, seconds=seconds,
        )  # fmt: skip
        assert not found.failed, (way.what, found)
        spent = _cpu_seconds() - before
        # Few large answers end within the time, so their bytes say more than their number.
        requests = found.bytes_rate * seconds / size if is_large else found.rate * seconds
        return Run(found.bytes_rate / MIB if is_large else found.rate, requests, spent)

    return run


def _store_one(way: Way, addresses: Addresses, body: bytes, digest: str, key: str) -> float:
    """Put a body; returns how many seconds it took."""
    door, method, path = _filled(way.put, way.algorithm, digest, key).split(" ")
    name, _, value = _filled(way.header, way.algorithm, digest, key).partition(": ")
    if way.is_form:
        body = _FORM_HEAD.encode() + body + _FORM_TAIL.encode()
    started = time.perf_counter()
    _ask(addresses[door], method, path, body, {name: value} if name else {})
    return time.perf_counter() - started


def _ask(
    address: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> None:
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(method, path, body or None, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        assert 200 <= answer.status < 300, (method, path, answer.status, content[:200])
    finally:
        connection.close()


def _filled(text: str, algorithm: str, digest: str, key: str) -> str:
    return text.format(algorithm=algorithm, digest=digest, key=key)


def _lua(text: str) -> str:
    """A text with its places as an expression of the script in objects.py."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r\n", "\\r\\n")
    quoted = quoted.replace("{key}", '" .. key() .. "')
    return '"' + quoted.replace("{digest}", '" .. digests[number] .. "') + '"'


def _digests(algorithm: str, seed: int, seconds: int) -> Iterator[str]:
    """The digests of the bodies that the script in objects.py sends."""
    filler = ("tierce benchmark " * 400).encode()
    for number in range(1, _DIGESTS_PER_SECOND * seconds + 1):
        head = f"{seed}:{number}:".encode()
        yield _digest(algorithm, (head + filler)[: objects.SIZE_BYTES])


def _digest(algorithm: str, body: bytes) -> str:
    if algorithm == "blake3":
        return blake3(body).hexdigest()
    return hashlib.new(algorithm, body).hexdigest()


def _cpu_ms(runs: Sequence[Run]) -> float:
    spent = sum(each.cpu_seconds for each in runs)
    return spent * 1000 / sum(each.requests for each in runs)


def _cpu_seconds() -> float:
    """The CPU time of all processes that descend from this one: between loads, those of the node."""
    parents: dict[int, int] = {}
    spent: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            text = (folder / "stat").read_text()
        except OSError:  # it has ended
            continue
        fields = text.rpartition(")")[2].split()
        parents[int(folder.name)] = int(fields[1])
        spent[int(folder.name)] = int(fields[11]) + int(fields[12])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sum(spent[pid] for pid in found - {os.getpid()}) / _TICKS_PER_SECOND
