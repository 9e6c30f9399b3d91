"""Measurements of named objects on one node, beside those of blobs without a name.

Blobs, files of the objstore door and named objects of the native door take turns in the same node, by
the same load: the ratio is what a name costs.
"""

import random
import socket
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bench import load, servers
from bench.cluster import store

SIZE_BYTES = 4096
STORED_COUNT = 10_000
CONNECTIONS_COUNT = 32
AIM = 0.7
BUCKET = "bench"
DOORS = ("native", "objstore")

FILE_PATH = "/api/v1/put"
OBJECTS_PATH = f"/v1/buckets/{BUCKET}/objects"

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TIME = "01JZ8PGS0M"
"""The time in the ids of what is read: it only has to be one that the objstore door takes."""

# Each body is new: a number that is never used again, then bytes that don't matter. Each key is a new
# ULID, as clients make them: the time, of which a millisecond passes in four puts, then random bits.
_PUT = """
local filler = string.rep("tierce benchmark ", 400)
local alphabet = "{alphabet}"
local pairs_of = {{}}
for i = 1, 32 do
  for j = 1, 32 do
    pairs_of[#pairs_of + 1] = alphabet:sub(i, i) .. alphabet:sub(j, j)
  end
end
math.randomseed({seed})
local number = 0
local started = os.time() * 1000
local time = ""
local key = function()
  if number % 4 == 1 then
    local left = started + (number - 1) / 4
    time = ""
    for i = 1, 5 do
      local digits = left % 1024
      time = pairs_of[digits + 1] .. time
      left = (left - digits) / 1024
    end
  end
  local parts = {{time}}
  for i = 2, 9 do parts[i] = pairs_of[math.random(1024)] end
  return table.concat(parts)
end
local headers = {{}}
request = function()
  number = number + 1
  local body = ("{seed}:" .. number .. ":" .. filler):sub(1, {size})
  {send}
end
"""
_PUT_FILE = """headers["X-Meta-ID"] = key()
  return wrk.format("POST", "{path}", headers, body)"""
_PUT_OBJECT = """return wrk.format("PUT", "{path}/" .. key(), headers, body)"""


class Figure(NamedTuple):
    """A line of the table: what, its rate, that of blobs, their ratio (medians), and a note."""

    what: str
    rate: float
    blobs: float
    ratio: float
    note: str


class Base(NamedTuple):
    """The base URLs of a node's two doors."""

    native: str
    objstore: str


class Way(NamedTuple):
    """One of those that take turns: what it is called, and what loads it."""

    what: str
    run: Callable[[], load.Load]


def put_objects(work: Path, pairs: int, seconds: int) -> Iterator[Figure]:
    """Durable PUT of 4 KiB under new names, 32 connections; against blobs without a name."""
    seeds = iter(random.SystemRandom().sample(range(1 << 31), 100_000))
    for workers in (1, 2):
        with servers.node(work / f"data-{workers}", workers=workers, doors=DOORS) as addresses:
            base = _base(addresses)

            def blobs(base: Base = base) -> load.Load:
                return load.post(
                    base.native, "/v1/blobs", work, size=SIZE_BYTES, run=f"run {next(seeds)}",
                    connections=CONNECTIONS_COUNT, seconds=seconds,
                )  # fmt: skip

            def files(base: Base = base) -> load.Load:
                send = _PUT_FILE.format(path=FILE_PATH)
                return put(base.objstore, send, work, next(seeds), seconds)

            def objects(base: Base = base) -> load.Load:
                send = _PUT_OBJECT.format(path=OBJECTS_PATH)
                return put(base.native, send, work, next(seeds), seconds)

            yield from _in_turn(
                Way("durable POST of a blob, 4 KiB", blobs),
                (
                    Way("objstore put of level 0, 4 KiB", files),
                    Way("native PUT of an object, 4 KiB", objects),
                ),
                pairs,
                workers,
            )


def get_objects(work: Path, pairs: int, seconds: int) -> Iterator[Figure]:
    """GET of 10,000 different objects of 4 KiB, 32 connections; against as many blobs."""
    for workers in (1, 2):
        with servers.node(work / f"data-{workers}", workers=workers, doors=DOORS) as addresses:
            base = _base(addresses)
            keys = [key() for _ in range(2 * STORED_COUNT)]
            files, objects = keys[:STORED_COUNT], keys[STORED_COUNT:]
            blob_paths = store(base.native, STORED_COUNT, SIZE_BYTES)
            send_all(base.objstore, [f"POST {FILE_PATH} {key}" for key in files], SIZE_BYTES)
            send_all(base.native, [f"PUT {OBJECTS_PATH}/{key}" for key in objects], SIZE_BYTES)
            yield from _in_turn(
                _reading("GET of a blob, 4 KiB", base.native, blob_paths, work, seconds),
                (
                    _reading(
                        "objstore get of level 0, 4 KiB",
                        base.objstore,
                        [f"/api/v1/get/{key}" for key in files],
                        work,
                        seconds,
                    ),
                    _reading(
                        "native GET of an object, 4 KiB",
                        base.native,
                        [f"{OBJECTS_PATH}/{key}" for key in objects],
                        work,
                        seconds,
                    ),
                ),
                pairs,
                workers,
            )


def send_all(base: str, requests: Sequence[str], size: int) -> None:
    """Send requests, METHOD PATH [ID], with random bodies of ``size`` bytes, by eight connections."""
    connections = 8
    host, _, port = base.removeprefix("http://").partition(":")

    def send_some(number: int) -> None:
        with socket.create_connection((host, int(port))) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answers = sock.makefile("rb")
            for request in requests[number::connections]:
                method, path, *key = request.split(" ")
                named = f"X-Meta-ID: {key[0]}\r\n" if key else ""
                head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\n{named}Content-Length: {size}"
                sock.sendall(f"{head}\r\n\r\n".encode() + random.randbytes(size))
                status = answers.readline()
                assert status.split(b" ")[1:2] in ([b"200"], [b"201"]), status
                length = 0
                while (line := answers.readline()) != b"\r\n":
                    assert line, "the node closed the connection"
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                answers.read(length)

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(send_some, range(connections)))


def line(figure: Figure) -> str:
    """A row of the table."""
    verdict = "reached" if figure.ratio >= AIM else "MISSED"
    return (
        f"| {figure.what} ({figure.note}) | {figure.rate:,.0f}/s | {figure.blobs:,.0f}/s |"
        f" {figure.ratio:.2f} | {AIM:.2f} | {verdict} |"
    )


def report(figures: list[Figure]) -> list[str]:
    """The part of RESULTS.md about named objects."""
    return [
        "",
        "# Measured speed of named objects",
        "",
        "One node, 32 connections, new names and contents for each put; blobs without a name, files of",
        "the objstore door and objects of the native door take turns.",
        "",
        "| measured | named | blobs in the same run | ratio | aim | |",
        "|---|---|---|---|---|---|",
        *map(line, figures),
        "",
    ]


def _in_turn(reference: Way, others: Sequence[Way], pairs: int, workers: int) -> Iterator[Figure]:
    """Run all in turn, and compare each of the others with the reference, round by round."""
    for each in (reference, *others):
        each.run()  # what is done for the first time counts for nobody
    rounds = [[_ran(each) for each in (reference, *others)] for _ in range(pairs)]
    blobs = [each[0] for each in rounds]
    for number, other in enumerate(others, start=1):
        found = [each[number] for each in rounds]
        yield Figure(
            f"{other.what}, {workers} worker(s)",
            statistics.median(each.rate for each in found),
            statistics.median(each.rate for each in blobs),
            statistics.median(
                mine.rate / blob.rate for mine, blob in zip(found, blobs, strict=True)
            ),
            f"p99 {statistics.median(each.p99_ms for each in found):.1f} ms,"
            f" of blobs {statistics.median(each.p99_ms for each in blobs):.1f} ms",
        )


def _ran(way: Way) -> load.Load:
    run = way.run()
    assert not run.failed, (way.what, run)
    return run


def _reading(what: str, base: str, paths: list[str], work: Path, seconds: int) -> Way:
    def run() -> load.Load:
        return load.get(base, paths, work, connections=CONNECTIONS_COUNT, seconds=seconds)

    return Way(what, run)


def put(base: str, send: str, work: Path, seed: int, seconds: int) -> load.Load:
    """Put new bodies of SIZE_BYTES by ``send``, lines of Lua that end with the request."""
    script = _PUT.format(alphabet=_ALPHABET, seed=seed, size=SIZE_BYTES, send=send)
    return load._wrk(base, script, work, CONNECTIONS_COUNT, seconds)


def key() -> str:
    """A new ULID."""
    return _TIME + "".join(random.choices(_ALPHABET, k=16))


def _base(addresses: dict[str, str]) -> Base:
    return Base(*(f"http://{addresses[door]}" for door in DOORS))
