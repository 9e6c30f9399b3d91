"""Run all measurements and write RESULTS.md.

Tierce and its reference take turns, A B A B, and the ratio is formed pair by pair: on a machine
whose speed drifts, the median of the ratios says more than any figure alone.
"""

import argparse
import os
import platform
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

from blake3 import blake3

from bench import cluster, doors, eviction, load, objects, records, servers, stores

T = TypeVar("T")

MIB = 1 << 20
SMALL_BYTES = 4096
LARGE_BYTES = 64 * MIB
SMALL_COUNT = 10_000

_EVICTION = [
    "",
    "# Hit ratios of eviction policies",
    "",
    "The table is in [EVICTION.md](EVICTION.md); the same run makes it.",
    "",
]


class Row(NamedTuple):
    """A line of the table: what, ours, the reference's, their ratio (medians), and the aim."""

    what: str
    ours: str
    reference: str
    ratio: float
    aim: float
    note: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="length of each load by wrk")
    parser.add_argument("--pairs", type=int, default=5, help="how often the two take turns")
    parser.add_argument("--only", default="", help="run only the measurements that contain this")
    parser.add_argument(
        "--quick", action="store_true", help="one short round with few records, to try it out"
    )
    parser.add_argument("--work", type=Path, help="where to keep data while it runs")
    arguments = parser.parse_args()
    for tool in (load.WRK, servers.NGINX):
        if not shutil.which(tool):
            sys.exit(f"bench: {tool} is not there; install the Debian packages wrk and nginx-light")
    if arguments.quick:
        arguments.pairs = arguments.seconds = 1
    work = Path(tempfile.mkdtemp(prefix="tierce-bench-", dir=arguments.work))

    def chosen(name: str) -> Path | None:
        """Where a measurement may keep its data, if it is to be made."""
        if arguments.only not in name:
            return None
        (work / name).mkdir()
        return work / name

    try:
        text = _measured(chosen, arguments.pairs, arguments.seconds, is_quick=arguments.quick)
    finally:
        shutil.rmtree(work)
    if "eviction" in arguments.only or not (arguments.only or arguments.quick):
        eviction.main()
    if not arguments.only and not arguments.quick:
        Path(__file__).with_name("RESULTS.md").write_text(text)


def _measured(
    chosen: Callable[[str], Path | None], pairs: int, seconds: int, *, is_quick: bool
) -> str:
    """Make all measurements that are chosen, print each line as it comes; returns the report."""
    rows: list[Row] = []
    for measure in (get_small, get_large, put_small, put_large):
        if folder := chosen(measure.__name__):
            rows.append(measure(folder, pairs, seconds))
            print(_line(rows[-1]), flush=True)
    figures = _all(
        chosen,
        pairs,
        seconds,
        (cluster.put_replicated, cluster.get_remote, cluster.heal),
        cluster.line,
    )
    named = _all(chosen, pairs, seconds, (objects.put_objects, objects.get_objects), objects.line)
    of_doors = _all(
        chosen,
        pairs,
        seconds,
        (doors.put_doors, doors.get_doors, doors.put_doors_large, doors.get_doors_large),
        doors.line,
    )
    of_stores = _all(
        chosen,
        pairs,
        seconds,
        (stores.put_store, stores.get_store, stores.put_store_large, stores.get_store_large),
        stores.line,
    )
    facts: list[records.Fact] = []
    for measure_records, count in (
        (records.index_records, records.INDEXED_COUNT),
        (records.sync_records, records.SYNCED_COUNT),
    ):
        if folder := chosen(measure_records.__name__):
            for fact in measure_records(folder, pairs, seconds, count // (50 if is_quick else 1)):
                facts.append(fact)
                print(records.line(fact), flush=True)
    parts = [_report(rows).rstrip("\n"), *cluster.report(figures)]
    parts += [*objects.report(named), *doors.report(of_doors), *stores.report(of_stores)]
    parts += [*records.report(facts), *_EVICTION]
    return "\n".join(parts)


def _all(
    chosen: Callable[[str], Path | None],
    pairs: int,
    seconds: int,
    measures: Iterable[Callable[[Path, int, int], Iterable[T]]],
    line: Callable[[T], str],
) -> list[T]:
    """Make those that are chosen, and print each line as it comes."""
    found = []
    for measure in measures:
        if folder := chosen(measure.__name__):
            for figure in measure(folder, pairs, seconds):
                found.append(figure)
                print(line(figure), flush=True)
    return found


def get_small(work: Path, pairs: int, seconds: int) -> Row:
    """GET of 10,000 different blobs of 4 KiB, 32 connections, against nginx over the same bytes."""
    with servers.tierce(work / "data") as base:
        paths = _store(base, work / "files", SMALL_COUNT, SMALL_BYTES)
        with servers.nginx(work / "files", work) as reference:
            return _paired(
                "GET 4 KiB, requests/s",
                lambda: load.get(base, paths, work, connections=32, seconds=seconds).rate,
                lambda: load.get(reference, paths, work, connections=32, seconds=seconds).rate,
                pairs,
                aim=0.5,
                show=lambda rate: f"{rate:,.0f}",
            )


def get_large(work: Path, pairs: int, seconds: int) -> Row:
    """GET of 64 MiB, 2 connections, against nginx."""
    with servers.tierce(work / "data") as base:
        paths = _store(base, work / "files", 4, LARGE_BYTES)
        with servers.nginx(work / "files", work) as reference:
            return _paired(
                "GET 64 MiB, MiB/s",
                lambda: (
                    load.get(base, paths, work, connections=2, seconds=seconds).bytes_rate / MIB
                ),
                lambda: (
                    load.get(reference, paths, work, connections=2, seconds=seconds).bytes_rate
                    / MIB
                ),
                pairs,
                aim=0.7,
                show=lambda rate: f"{rate:,.0f}",
            )


def put_small(work: Path, pairs: int, seconds: int) -> Row:
    """Durable POST of 4 KiB, 32 connections, against one synced file a blob."""
    latencies: list[float] = []
    serial = iter(range(1000))

    def ours() -> float:
        run = load.post(
            base, "/v1/blobs", work, size=SMALL_BYTES, run=f"run {next(serial)}",
            connections=32, seconds=seconds,
        )  # fmt: skip
        assert not run.failed, run
        latencies.append(run.p99_ms)
        return run.rate

    def theirs() -> float:
        run = load.post(
            reference, "/", work, size=SMALL_BYTES, run=f"run {next(serial)}",
            connections=32, seconds=seconds,
        )  # fmt: skip
        assert not run.failed, run
        return run.rate

    with (
        servers.tierce(work / "data") as base,
        servers.file_per_blob(work / "reference") as reference,
    ):
        row = _paired(
            "durable PUT 4 KiB, requests/s", ours, theirs, pairs, aim=3.0,
            show=lambda rate: f"{rate:,.0f}",
        )  # fmt: skip
    bare = _bare_files(work / "bare", seconds)
    note = f"p99 {statistics.median(latencies):.1f} ms; synced files without HTTP: {bare:,.0f}/s"
    return row._replace(note=note)


def put_large(work: Path, pairs: int, seconds: int) -> Row:
    """Durable PUT of 64 MiB, one connection, against hashing and writing the same bytes."""
    content = bytearray(os.urandom(LARGE_BYTES))
    serial = iter(range(1000))

    def fresh() -> memoryview:
        content[:8] = next(serial).to_bytes(8)
        return memoryview(content)

    del seconds  # a fixed number of bodies, not a time

    def ours() -> float:
        body = fresh()
        started = time.perf_counter()
        _post_raw(base, body)
        seconds = time.perf_counter() - started
        _delete_raw(base, f"/v1/blobs/blake3:{blake3(body).hexdigest()}")
        return LARGE_BYTES / MIB / seconds

    def theirs() -> float:
        body = fresh()
        started = time.perf_counter()
        hasher = blake3()
        with (work / "reference").open("wb", buffering=0) as file:
            for start in range(0, LARGE_BYTES, MIB):
                piece = body[start : start + MIB]
                hasher.update(piece)
                file.write(piece)
            hasher.digest()
            os.fsync(file.fileno())
        seconds = time.perf_counter() - started
        (work / "reference").unlink()
        return LARGE_BYTES / MIB / seconds

    # Both remove what they wrote: memory for the page cache that is used for the first time costs
    # a virtual machine several times as much as memory that is used again.
    with servers.tierce(work / "data") as base:
        ours()
        return _paired(
            "durable PUT 64 MiB, MiB/s", ours, theirs, 2 * pairs + 1, aim=0.5,
            show=lambda rate: f"{rate:,.0f}",
        )  # fmt: skip


def _paired(
    what: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    pairs: int,
    *,
    aim: float,
    show: Callable[[float], str],
) -> Row:
    measured = [(ours(), theirs()) for _ in range(pairs)]
    return Row(
        what,
        show(statistics.median(mine for mine, _ in measured)),
        show(statistics.median(reference for _, reference in measured)),
        statistics.median(mine / reference for mine, reference in measured),
        aim,
    )


def _store(base: str, files: Path, count: int, size: int) -> list[str]:
    """Put random blobs into the node and the same bytes into files; returns their common paths."""
    folder = files / "v1" / "blobs"
    folder.mkdir(parents=True)
    paths = []
    with _connect(base) as sock:
        for _ in range(count):
            data = os.urandom(size)
            digest = f"blake3:{blake3(data).hexdigest()}"
            _exchange(sock, f"PUT /v1/blobs/{digest}", memoryview(data))
            (folder / digest).write_bytes(data)
            paths.append(f"/v1/blobs/{digest}")
    return paths


def _bare_files(folder: Path, seconds: int) -> float:
    """Synced files a second that one thread writes, without any server."""
    folder.mkdir()
    data = bytearray(os.urandom(SMALL_BYTES))
    deadline = time.perf_counter() + seconds
    done = 0
    while time.perf_counter() < deadline:
        data[:8] = done.to_bytes(8)
        fd = os.open(folder / "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, data)
        os.fsync(fd)
        os.close(fd)
        os.rename(folder / "new", folder / str(done))
        done += 1
    return done / seconds


def _post_raw(base: str, body: memoryview) -> None:
    with _connect(base) as sock:
        _exchange(sock, "POST /v1/blobs", body)


def _delete_raw(base: str, path: str) -> None:
    with _connect(base) as sock:
        sock.sendall(f"DELETE {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        answer = sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 204"), answer


def _connect(base: str) -> socket.socket:
    host, _, port = base.removeprefix("http://").partition(":")
    sock = socket.create_connection((host, int(port)))
    # Head and body go out in two writes, and the second must not wait for the first one's receipt.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _exchange(sock: socket.socket, request: str, body: memoryview) -> None:
    head = f"{request} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
    sock.sendall(head.encode())
    sock.sendall(body)
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"\n"):
        more = sock.recv(65536)
        assert more, "the node closed the connection"
        answer += more
    assert answer.startswith(b"HTTP/1.1 201"), answer


def _line(row: Row) -> str:
    verdict = "reached" if row.ratio >= row.aim else "MISSED"
    note = f" ({row.note})" if row.note else ""
    return (
        f"| {row.what}{note} | {row.ours} | {row.reference} | {row.ratio:.2f} | {row.aim:.2f} |"
        f" {verdict} |"
    )


def _report(rows: list[Row]) -> str:
    lines = [
        "# Measured speed of one node",
        "",
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {os.cpu_count()} processors"
        f" ({_processor()}), Linux, Python {platform.python_version()}."
        " Load generator, reference and node share these processors.",
        "",
        "Repeat with `make bench`. Node and reference take turns; figures are medians, the ratio is the",
        "median of the ratios pair by pair. Verification of every byte is on, every write is synced.",
        "",
        "| measured | Tierce | reference | ratio | aim | |",
        "|---|---|---|---|---|---|",
        *map(_line, rows),
        "",
        "References: for GET, nginx with two workers serving the same bytes from files; for small PUT,",
        "an aiohttp server with two processes that syncs one file a blob (`bench/file_per_blob.py`);",
        "for large PUT, hashing and writing the same bytes in one process, synced once, without HTTP.",
        "",
    ]
    return "\n".join(lines)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
