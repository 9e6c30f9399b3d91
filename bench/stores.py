"""Measurements of a node whose blobs are in a bucket, beside rclone's own client on the same server.

Both talk to one rclone server of S3 over a directory on this machine, in turn. The node answers HTTP,
hashes, keeps a catalogue that is synced, and verifies what it reads; rclone's client copies files, with
as many transfers at once as the node has connections. Its start is part of its time.
"""

import os
import random
import shutil
import statistics
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from bench import load, servers
from tierce.testing import rclone

MIB = 1 << 20
SMALL_BYTES = 4096
SMALL_COUNT = 3_000
LARGE_BYTES = 64 * MIB
CONNECTIONS_COUNT = 32
_WORKERS = (1, 2)


class Figure(NamedTuple):
    """A line of the table. Rates are in ``unit``; ``ratio`` is the median of those of each pair."""

    what: str
    unit: str
    rate: float
    reference: float
    ratio: float


def put_store(work: Path, pairs: int, seconds: int) -> Iterator[Figure]:
    """PUT of 4 KiB, new each, 32 connections; rclone: a copy of 3,000 files, 32 at once."""
    files = _small_files(work / "files")
    with rclone.serve_s3(work / "s3") as server:
        client = _Client(server)
        for workers in _WORKERS:
            with _node(work, server, workers) as base:
                yield _paired(
                    f"PUT 4 KiB, {workers} worker(s)", "/s",
                    partial(_post, base, work, seconds), partial(client.put_small, files), pairs,
                )  # fmt: skip


def get_store(work: Path, pairs: int, seconds: int) -> Iterator[Figure]:
    """GET of 3,000 blobs of 4 KiB, 32 connections; rclone: a copy of them into its memory."""
    files = _small_files(work / "files")
    with rclone.serve_s3(work / "s3") as server:
        client = _Client(server)
        client.put_small(files)
        for workers in _WORKERS:
            for what, flags in (("no cache", ("--store-cache-bytes", "0")), ("cached", ())):
                with _node(work, server, workers, *flags) as base:
                    paths = [_put(base, each.read_bytes())[0] for each in sorted(files.iterdir())]
                    yield _paired(
                        f"GET 4 KiB, {what}, {workers} worker(s)", "/s",
                        partial(_get_small, base, paths, work, seconds), client.get_small, pairs,
                    )  # fmt: skip


def put_store_large(work: Path, pairs: int, seconds: int) -> Iterator[Figure]:
    """PUT of 64 MiB, one connection; rclone: a copy of the same bytes."""
    del seconds  # a fixed number of bodies, not a time
    file = work / "large"
    content = bytearray(os.urandom(LARGE_BYTES))

    def ours(base: str) -> float:
        content[:8] = random.randbytes(8)
        path, spent = _put(base, bytes(content))
        _ask(base, "DELETE", path)
        return LARGE_BYTES / MIB / spent

    def theirs() -> float:
        content[:8] = random.randbytes(8)
        file.write_bytes(content)
        return LARGE_BYTES / MIB / client.put_large(file)

    with rclone.serve_s3(work / "s3") as server:
        client = _Client(server)
        for workers in _WORKERS:
            with _node(work, server, workers) as base:
                yield _paired(
                    f"PUT 64 MiB, {workers} worker(s)", " MiB/s",
                    partial(ours, base), theirs, 2 * pairs + 1,
                )  # fmt: skip


def get_store_large(work: Path, pairs: int, seconds: int) -> Iterator[Figure]:
    """GET of 64 MiB, one connection; rclone: `rclone cat` of the same bytes."""
    file = work / "large"
    file.write_bytes(os.urandom(LARGE_BYTES))
    with rclone.serve_s3(work / "s3") as server:
        client = _Client(server)
        client.put_large(file)
        for workers in _WORKERS:
            for what, flags in (("no cache", ("--store-cache-bytes", "0")), ("cached", ())):
                with _node(work, server, workers, *flags) as base:
                    path, _ = _put(base, file.read_bytes())
                    yield _paired(
                        f"GET 64 MiB, {what}, {workers} worker(s)", " MiB/s",
                        partial(_get_large, base, path, work, seconds), client.get_large, pairs,
                    )  # fmt: skip


def line(figure: Figure) -> str:
    """A row of the table."""
    return (
        f"| {figure.what} | {figure.rate:,.0f}{figure.unit} |"
        f" {figure.reference:,.0f}{figure.unit} | {figure.ratio:.2f} |"
    )


def report(figures: Sequence[Figure]) -> list[str]:
    """The part of RESULTS.md about stores."""
    return [
        "",
        "# Measured speed of a node whose blobs are in a bucket",
        "",
        "Node and rclone's own client (`rclone copy`, `rclone cat`) take turns on one rclone server of",
        "S3 on this machine, which shares its processors with both. `cached`: from the local cache.",
        "",
        "| measured | node | rclone's client in the same run | ratio |",
        "|---|---|---|---|",
        *map(line, figures),
        "",
    ]


class _Client:
    """rclone's client, with what makes it fast; each method returns a rate, or the seconds it took."""

    def __init__(self, server: rclone.RcloneServer) -> None:
        self._small = ""
        self._serial = 0
        self._environment = {
            **os.environ,
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_S3_PROVIDER": "Rclone",
            "RCLONE_S3_ENDPOINT": server.endpoint,
            "RCLONE_S3_ACCESS_KEY_ID": rclone.ACCESS_KEY,
            "RCLONE_S3_SECRET_ACCESS_KEY": rclone.SECRET_KEY,
            "RCLONE_S3_NO_CHECK_BUCKET": "true",
            "RCLONE_S3_NO_HEAD": "true",
            "RCLONE_TRANSFERS": str(CONNECTIONS_COUNT),
            "RCLONE_CHECKERS": str(CONNECTIONS_COUNT),
            "RCLONE_NO_CHECK_DEST": "true",
        }

    def put_small(self, files: Path) -> float:
        self._serial += 1
        self._small = f":s3:{rclone.BUCKET}/rclone-{self._serial}"
        return SMALL_COUNT / self._run("copy", str(files), self._small)

    def get_small(self) -> float:
        return SMALL_COUNT / self._run("copy", self._small, ":memory:bucket")

    def put_large(self, file: Path) -> float:
        return self._run("copyto", str(file), f":s3:{rclone.BUCKET}/rclone-large")

    def get_large(self) -> float:
        spent = self._run("cat", f":s3:{rclone.BUCKET}/rclone-large")
        return LARGE_BYTES / MIB / spent

    def _run(self, *arguments: str) -> float:
        program = Path(sysconfig.get_path("scripts")) / "rclone"
        started = time.perf_counter()
        subprocess.run(
            [str(program), *arguments], env=self._environment, stdout=subprocess.DEVNULL, check=True
        )
        return time.perf_counter() - started


def _node(
    work: Path, server: rclone.RcloneServer, workers: int, *flags: str
) -> AbstractContextManager[str]:
    """A new node with a prefix of its own; gives the base URL of its native door."""
    number = random.randbytes(4).hex()
    store = f"s3://{rclone.BUCKET}/node-{number}?endpoint={server.endpoint}"
    keys = {"AWS_ACCESS_KEY_ID": rclone.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": rclone.SECRET_KEY}
    return servers.tierce(
        work / f"node-{number}", "--store", store, *flags, workers=workers, environment=keys
    )


def _paired(
    what: str, unit: str, ours: Callable[[], float], theirs: Callable[[], float], pairs: int
) -> Figure:
    ours()  # what is done for the first time counts for nobody
    theirs()
    measured = [(ours(), theirs()) for _ in range(pairs)]
    return Figure(
        what,
        unit,
        statistics.median(mine for mine, _ in measured),
        statistics.median(reference for _, reference in measured),
        statistics.median(mine / reference for mine, reference in measured),
    )


def _post(base: str, work: Path, seconds: int) -> float:
    run = load.post(
        base, "/v1/blobs", work, size=SMALL_BYTES, run=random.randbytes(8).hex(),
        connections=CONNECTIONS_COUNT, seconds=seconds,
    )  # fmt: skip
    assert not run.failed, run
    return run.rate


def _get_small(base: str, paths: list[str], work: Path, seconds: int) -> float:
    run = load.get(base, paths, work, connections=CONNECTIONS_COUNT, seconds=seconds)
    assert not run.failed, run
    return run.rate


def _get_large(base: str, path: str, work: Path, seconds: int) -> float:
    run = load.get(base, [path], work, connections=1, seconds=seconds)
    assert not run.failed, run
    return run.bytes_rate / MIB


def _small_files(folder: Path) -> Path:
    """Files of random bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number in range(SMALL_COUNT):
        (folder / f"{number:05}").write_bytes(random.randbytes(SMALL_BYTES))
    return folder


def _put(base: str, body: bytes) -> tuple[str, float]:
    """Put a body; its path, and how many seconds it took."""
    started = time.perf_counter()
    location = _ask(base, "POST", "/v1/blobs", body)
    return location, time.perf_counter() - started


def _ask(base: str, method: str, path: str, body: bytes | None = None) -> str:
    connection = HTTPConnection(base.removeprefix("http://"), timeout=60)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        content = answer.read()
        assert 200 <= answer.status < 300, (method, path, answer.status, content[:200])
        return answer.getheader("Location", "")
    finally:
        connection.close()
