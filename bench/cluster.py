"""Measurements of a cluster: three nodes on this machine, which share its processors.

Each figure stands beside that of one node alone, in the same run and by the same load: the ratio is
what it costs to keep three copies, or to serve what lies elsewhere.
"""

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

from bench import load, servers

PATIENCE_SECONDS = 600.0


class Node(NamedTuple):
    """A node that runs: its process, its data directory and the base URL of its native door."""

    process: subprocess.Popen[str]
    data: Path
    base: str


class Cluster:
    """Three nodes that know each other, and the flags to start another one."""

    def __init__(self, work: Path, workers: int) -> None:
        self._work = work
        self._workers = workers
        self._privates = [f"127.0.0.1:{servers.free_port()}" for _ in range(4)]
        self.nodes: list[Node] = []

    def start(self, *flags: str) -> Node:
        """Start one more node."""
        number = len(self.nodes)
        data = self._work / f"node-{number}"
        command = [
            sys.executable, "-c", "import sys; from tierce.cli.main import main; sys.exit(main())",
            "serve", "--data", str(data), "--listen", "native=127.0.0.1:0",
            "--workers", str(self._workers), "--reserve-bytes", "0", "--replication", "3",
            "--private", self._privates[number], "--join", self._privates[0],
            "--down-grace-seconds", "1", "--heal-bytes-per-second", "0",
            "--scrub-interval-seconds", "10", *flags,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        base = "http://" + process.stdout.readline().split("native=")[1].strip()
        self.nodes.append(Node(process, data, base))
        return self.nodes[-1]

    def overview(self) -> dict[str, Any]:
        """What the first node says of the cluster."""
        with urllib.request.urlopen(self.nodes[0].base + "/v1/cluster") as answer:
            content: dict[str, Any] = json.load(answer)
            return content

    def wait_for(self, what: str, condition: Any) -> float:
        """Wait until the overview fulfils a condition; returns the seconds that it took."""
        started = time.perf_counter()
        while time.perf_counter() - started < PATIENCE_SECONDS:
            with contextlib.suppress(OSError, ValueError):
                if condition(self.overview()):
                    return time.perf_counter() - started
            time.sleep(0.05)
        raise RuntimeError(f"waited in vain for {what}")

    def stop(self) -> None:
        for node in self.nodes:
            node.process.kill()
        for node in self.nodes:
            node.process.wait()


@contextlib.contextmanager
def three_nodes(work: Path, workers: int) -> Iterator[Cluster]:
    """A cluster of three, ready for writes."""
    cluster = Cluster(work, workers)
    try:
        for _ in range(3):
            cluster.start()
        cluster.wait_for("three nodes", lambda now: len(now["nodes"]) == 3)
        for node in cluster.nodes:
            wait_for_members(node, 3)
        yield cluster
    finally:
        cluster.stop()


def wait_for_members(node: Node, count: int) -> None:
    """Wait until all of a node's workers may know of so many members."""
    deadline = time.perf_counter() + 30
    while time.perf_counter() < deadline:
        with urllib.request.urlopen(node.base + "/v1/status") as answer:
            members = json.load(answer)["agent"]["members"]
        if sum(each["state"] == "alive" for each in members) == count:
            time.sleep(0.1)
            time.sleep(0.2)
            return
        time.sleep(0.05)
    raise RuntimeError("the nodes don't know each other")


class Figure(NamedTuple):
    """A line of the table: what, the cluster's figure, the reference's, their ratio, and the aim."""

    what: str
    cluster: str
    reference: str
    ratio: float
    aim: str
    note: str = ""


def put_replicated(work: Path, pairs: int, seconds: int) -> list[Figure]:
    """Durable POST of 4 KiB, 32 connections, three copies; against one node that keeps one copy."""
    figures = []
    for workers in (1, 2):
        rates: list[float] = []
        latencies: list[float] = []
        alone: list[float] = []
        folder = work / f"workers-{workers}"
        folder.mkdir()
        with (
            three_nodes(folder, workers) as cluster,
            servers.tierce(folder / "alone", workers=workers) as single,
        ):
            for number in range(pairs):
                for base, found in ((cluster.nodes[0].base, rates), (single, alone)):
                    run = load.post(
                        base, "/v1/blobs", folder, size=4096, run=f"{base} {number}",
                        connections=32, seconds=seconds,
                    )  # fmt: skip
                    assert not run.failed, run
                    found.append(run.rate)
                    if found is rates:
                        latencies.append(run.p99_ms)
        figures.append(
            Figure(
                f"durable PUT 4 KiB, three copies, {workers} worker(s) a node",
                f"{statistics.median(rates):,.0f}/s",
                f"one node, one copy: {statistics.median(alone):,.0f}/s",
                statistics.median(ours / other for ours, other in zip(rates, alone, strict=True)),
                "2,000/s",
                f"p99 {statistics.median(latencies):.0f} ms",
            )
        )
    return figures


def get_remote(work: Path, pairs: int, seconds: int) -> list[Figure]:
    """GET of 4 KiB, 32 connections, through a node that has no copy; against one that has."""
    with three_nodes(work, 1) as cluster:
        bystander = cluster.start("--read-only")
        cluster.wait_for("the fourth node", lambda now: len(now["nodes"]) == 4)
        wait_for_members(bystander, 4)
        paths = store(cluster.nodes[0].base, 5000, 4096)
        remote: list[float] = []
        local: list[float] = []
        for _ in range(pairs):
            for base, found in ((bystander.base, remote), (cluster.nodes[1].base, local)):
                run = load.get(base, paths, work, connections=32, seconds=seconds)
                assert not run.failed, run
                found.append(run.rate)
    return [
        Figure(
            "GET 4 KiB through a node without a copy",
            f"{statistics.median(remote):,.0f}/s",
            f"through one with a copy: {statistics.median(local):,.0f}/s",
            statistics.median(ours / other for ours, other in zip(remote, local, strict=True)),
            "5,000/s",
        )
    ]


def heal(work: Path, pairs: int, seconds: int) -> list[Figure]:
    """Filling a node that replaces a lost one; against writing the same bytes as synced files."""
    del pairs, seconds  # a fixed number of blobs, once
    figures = []
    for count, size, aim in ((10_000, 4096, "-"), (1_000, 1 << 20, "-")):
        folder = work / f"{count}"
        folder.mkdir()
        with three_nodes(folder, 1) as cluster:
            store(cluster.nodes[0].base, count, size)
            lost = cluster.nodes[2]
            lost.process.kill()
            lost.process.wait()
            shutil.rmtree(lost.data)
            started = time.perf_counter()
            new = cluster.start()

            def healed(now: dict[str, Any], data: str = new.base, count: int = count) -> bool:
                accounts = {each["native"]: each["status"] for each in now["nodes"]}
                mine = accounts.get(data)
                return bool(mine and mine["blobs"] == count and not now["below_target"])

            cluster.wait_for("the new node to be filled", healed)
            took = time.perf_counter() - started
        reference = synced_files(folder / "reference", count, size)
        shutil.rmtree(folder)
        figures.append(
            Figure(
                f"re-replicating {count:,} blobs of {size // 1024:,} KiB to a new node",
                f"{took:.1f} s",
                f"writing them as synced files, one thread: {reference:.1f} s",
                reference / took,
                aim,
                f"{count / took:,.0f} blobs/s, {count * size / took / (1 << 20):,.0f} MiB/s, from its"
                " start to the last copy read back",
            )
        )
    return figures


def store(base: str, count: int, size: int) -> list[str]:
    """Put random blobs by several connections; returns their paths."""
    bodies = 8

    def put_some(number: int) -> list[str]:
        paths = []
        host, _, port = base.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(number, count, bodies):
                data = os.urandom(size)
                path = f"/v1/blobs/blake3:{blake3(data).hexdigest()}"
                head = f"PUT {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {size}\r\n\r\n"
                sock.sendall(head.encode())
                sock.sendall(data)
                answer = b""
                while b"\r\n\r\n" not in answer or not answer.endswith(b"\n"):
                    answer += sock.recv(65536) or b"\n\r\n\r\nclosed\n"
                assert answer.startswith(b"HTTP/1.1 201"), answer
                paths.append(path)
        return paths

    with ThreadPoolExecutor(bodies) as pool:
        return [path for some in pool.map(put_some, range(bodies)) for path in some]


def synced_files(folder: Path, count: int, size: int) -> float:
    """Seconds to write so many files and sync each."""
    folder.mkdir()
    data = bytearray(os.urandom(size))
    started = time.perf_counter()
    for number in range(count):
        data[:8] = number.to_bytes(8)
        fd = os.open(folder / str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, data)
        os.fsync(fd)
        os.close(fd)
    return time.perf_counter() - started


def line(figure: Figure) -> str:
    """A row of the table."""
    note = f" ({figure.note})" if figure.note else ""
    return (
        f"| {figure.what}{note} | {figure.cluster} | {figure.reference} | {figure.ratio:.2f} |"
        f" {figure.aim} |"
    )


def report(figures: list[Figure]) -> list[str]:
    """The part of RESULTS.md about clusters."""
    return [
        "",
        "# Measured speed of a cluster",
        "",
        "Three nodes on the same machine, which share its processors with the load.",
        "",
        "| measured | three nodes | reference in the same run | ratio | aim |",
        "|---|---|---|---|---|",
        *map(line, figures),
        "",
    ]
