"""Near-caches as real processes, the S3 behind them, and gates between all of these.

A gate holds requests of one kind, or their answers, at a proxy, so that a test can kill a node at a
known step of a put. Gates stand between a node and its upstream, and between a node and its peers.
"""

import asyncio
import contextlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import boto3  # type: ignore[import-untyped]

from tierce.core import ulids
from tierce.doors.objstore.environment import FLAGS
from tierce.testing.calls import Reply, call
from tierce.testing.cluster_processes import ClusterNode, ClusterProcesses, free_port
from tierce.testing.fault_proxy import FaultProxy, Mode
from tierce.testing.processes import PATIENCE_SECONDS, Address, Ended, wait_for
from tierce.testing.rclone import ACCESS_KEY, BUCKET, SECRET_KEY

_OBJSTORE = re.compile(r"^tierce: (\w+)=[\d.]+:(\d+)$", re.MULTILINE)
_OBJSTORE_ID = re.compile(r"^tierce: node ID: (\S+)$", re.MULTILINE)

KEYS = {
    # Nothing of this machine's own credentials, settings or proxies counts.
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_SESSION_TOKEN": "",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "*",
    "no_proxy": "*",
    **{flag.environment: "" for flag in FLAGS.values() if flag.environment},
}
"""The environment of a node whose upstream is one of testing/rclone.py."""


class ObjstoreNode(ClusterNode):
    """A node by ``tierce objstore``, in a directory of its own, where its state/ and files/ are.

    ``words`` are its flags; the public and the private address must be among them. ``address`` is
    that of the objstore door.
    """

    def __init__(self, place: Path, *words: str, environment: Mapping[str, str] = KEYS) -> None:
        place.mkdir(parents=True)
        super().__init__(place / "state", logs=place, environment=environment)
        self._words = words

    def __enter__(self) -> "ObjstoreNode":
        return self

    @property
    def address(self) -> Address:
        return self.addresses["objstore"]

    def command(self) -> list[str]:
        serve = super().command()
        return [*serve[: serve.index("serve")], "objstore", *self._words]

    def wait_ready(self) -> None:
        def ready() -> bool:
            if self.exit_code() is not None:
                raise Ended(f"the node ended with {self.exit_code()}:\n{self.log[-4000:]}")
            said = self.stdout.read_text()
            found = {door: Address(f"127.0.0.1:{port}") for door, port in _OBJSTORE.findall(said)}
            if "private" not in found:  # it is named last
                return False
            self.addresses = found
            self.node_id = _OBJSTORE_ID.findall(said)[0]
            return True

        wait_for(ready, "the node to be ready")


class NearCaches(ClusterProcesses):
    """Nodes with the native and the objstore door. ``upstreams`` has an endpoint for each, or one
    for all, or none.

    Those whose number is in ``gated`` are told to others by the address of a proxy, ``gates[number]``.
    """

    def __init__(
        self,
        root: Path,
        count: int,
        *,
        upstreams: Iterable[str] = (),
        gated: Iterable[int] = (),
        **settings: object,
    ) -> None:
        self._upstreams = list(upstreams)
        self._gated = set(gated)
        self._stack = contextlib.ExitStack()
        self.gates: dict[int, GateProxy] = {}
        super().__init__(root, count, **{"replication": min(count, 3), **settings})

    def __enter__(self) -> "NearCaches":
        super().__enter__()
        return self

    def start(self) -> None:
        """The same, and wait until the workers, who hear of others by their agent, take writes."""
        super().start()
        for node in self.running:
            taken = 0
            while taken < _TAKEN_IN_A_ROW:
                wait_for(lambda node=node: _takes_writes(node), "the node to take writes")  # type: ignore[misc]
                taken = taken + 1 if _takes_writes(node) else 0
                time.sleep(0.02)

    def make_node(self, data: Path, settings: dict[str, object]) -> ClusterNode:
        number = len(self.nodes)
        if self._upstreams:
            endpoint = self._upstreams[min(number, len(self._upstreams) - 1)]
            settings["upstream"] = f"s3://{BUCKET}?endpoint={endpoint}"
        if number in self._gated:
            port = Address(settings["private"]).port
            gate = self.gates[number] = self._stack.enter_context(gate_proxy(port))
            settings["advertise"] = gate.endpoint.removeprefix("http://")
        settings.setdefault("listen", [f"{door}=127.0.0.1:{free_port()}" for door in DOORS])
        return ClusterNode(data, environment=KEYS, **settings)  # type: ignore[arg-type]

    def _kill_all(self) -> None:
        super()._kill_all()
        self._stack.close()


DOORS = ("native", "objstore")
# Each request goes to a worker by chance.
_TAKEN_IN_A_ROW = 6


def _takes_writes(node: ClusterNode) -> bool:
    return call(node.address, "PUT", "/v1/buckets/start/objects/test", b"").status in (200, 201)


# The door


def new_id() -> str:
    """An id that nobody has used."""
    return ulids.make(time.time_ns() // 1_000_000, secrets.token_bytes(ulids.RANDOM_BYTES))


def file_door(node: ClusterNode) -> Address:
    """Where the objstore door of a node answers."""
    return node.addresses["objstore"]


def put_file(node: ClusterNode, key: str, data: bytes, level: int, **headers: str) -> Reply:
    """Put a file; underscores in the names of headers stand for dashes."""
    sent = {"X-Meta-ID": key, "X-Meta-ConsistencyLevel": str(level)}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return call(file_door(node), "POST", "/api/v1/put", data, sent, timeout=2 * PATIENCE_SECONDS)


def get_file(node: ClusterNode, key: str, *, fetch: bool = False) -> Reply:
    """Get a file."""
    headers = {"X-Meta-Fetch": "1"} if fetch else {}
    return call(file_door(node), "GET", f"/api/v1/get/{key}", headers=headers)


def file_meta(node: ClusterNode, key: str) -> Reply:
    """What a node knows of a file."""
    return call(file_door(node), "GET", f"/api/v1/meta/{key}")


def waiting_uploads(node: ClusterNode) -> int | None:
    """How many objects a node has yet to give to the upstream; None while it can't say."""
    reply = call(node.address, "GET", "/v1/status")
    agent = reply.json["agent"] if reply.status == 200 else None
    return None if agent is None else int(agent["names"]["uploads_waiting"])


def has_own_copy(node: ClusterNode, key: str, data: bytes) -> bool:
    """Whether a node serves a file from its own disk. Wrong bytes are an AssertionError."""
    reply = get_file(node, key)
    if reply.status != 200:
        return False
    assert reply.complete
    assert reply.body == data, f"{node.data.name} serves wrong bytes for {key}"
    return "x-meta-symlink" not in reply.headers and "x-meta-fetched" not in reply.headers


def records(node: ClusterNode) -> dict[tuple[str, str], dict[str, Any]]:
    """All that a node knows of names, tombstones too, as its feed of changes tells it."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    since = ""
    while True:
        reply = call(node.address, "GET", f"/v1/changes?limit=1000{since}")
        assert reply.status == 200, reply
        for change in reply.json["changes"]:
            del change["seq"]  # each node has numbers of its own
            found[change["bucket"], change["key"]] = change
        if not reply.json["changes"]:
            return found
        since = f"&since={reply.json['next']}"


class Attempts:
    """Requests in threads, whose node may be killed meanwhile. Use it as a context manager."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(128)
        self._futures: list[Future[Reply | None]] = []

    def __enter__(self) -> "Attempts":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def begin(self, request: Callable[..., Reply], *arguments: Any, **named: Any) -> None:
        """Begin a request."""

        def work() -> Reply | None:
            try:
                return request(*arguments, **named)
            except (OSError, HTTPException):
                return None

        self._futures.append(self._pool.submit(work))

    def replies(self) -> list[Reply | None]:
        """Wait for all that were begun, in their order; None for those that got no answer."""
        return [each.result(4 * PATIENCE_SECONDS) for each in self._futures]

    @property
    def are_open(self) -> bool:
        """Whether none of those that were begun has ended."""
        return not any(each.done() for each in self._futures)


# S3, seen from the side


class Stored(NamedTuple):
    """An object in the bucket: its content, and its metadata, whose names are in lower case.

    They are headers, and S3 has no other case; rclone writes them with capitals.
    """

    body: bytes
    metadata: dict[str, str]
    content_type: str


class Bucket:
    """The bucket behind the nodes, looked into by Amazon's own client."""

    def __init__(self, endpoint: str) -> None:
        self._client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    def keys(self) -> list[str]:
        """The keys of all objects, in order."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return sorted(each["Key"] for page in pages for each in page.get("Contents", []))

    def get(self, key: str) -> Stored:
        """An object; KeyError if it is not there."""
        try:
            found = self._client.get_object(Bucket=BUCKET, Key=key)
        except self._client.exceptions.NoSuchKey:
            raise KeyError(key) from None
        with contextlib.closing(found["Body"]) as body:
            metadata = {name.lower(): value for name, value in found["Metadata"].items()}
            return Stored(body.read(), metadata, found["ContentType"])

    def put(self, key: str, data: bytes, metadata: Mapping[str, str] | None = None) -> None:
        """Put an object, as another program would."""
        self._client.put_object(Bucket=BUCKET, Key=key, Body=data, Metadata=dict(metadata or {}))

    def close(self) -> None:
        """Close its connections."""
        self._client.close()


# Gates


class Gate:
    """Requests whose ``METHOD TARGET`` matches, or their answers, are held while it is shut.

    A request that is held never gets through, even if the gate is opened; an answer does.
    """

    def __init__(self, request: str, *, at_answer: bool) -> None:
        self._request = re.compile(request)
        self.at_answer = at_answer
        self.is_shut = True
        self.held = 0

    def concerns(self, method: str, target: str) -> bool:
        return self.is_shut and self._request.match(f"{method} {target}") is not None

    def wait_held(self, count: int = 1) -> None:
        """Wait until so many requests, or answers, are held."""
        wait_for(
            lambda: self.held >= count, f"{count} requests to be held: {self._request.pattern}"
        )


class GateProxy(FaultProxy):
    """A FaultProxy with gates, in a thread of its own. Tests may look at it, and set it, from theirs."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._gates: list[Gate] = []
        self._at_answer: dict[asyncio.Task[Any], Gate] = {}

    @contextlib.contextmanager
    def shut(self, request: str, *, at_answer: bool = False) -> Iterator[Gate]:
        """Hold requests that begin like ``METHOD TARGET``, a regular expression, or their answers."""
        gate = Gate(request, at_answer=at_answer)
        self._gates.append(gate)
        try:
            yield gate
        finally:
            gate.is_shut = False
            self._gates.remove(gate)

    def count(self, method: str, key: str) -> int:
        """How many requests of a method for an object came by."""
        return sum(
            found == method and target.partition("?")[0].endswith(f"/{key}")
            for found, target in self.requests
        )

    def _next_mode(self, method: str) -> Mode:
        target = self.requests[-1][1]
        for gate in self._gates:
            if not gate.concerns(method, target):
                continue
            if gate.at_answer:
                self._at_answer[_task()] = gate
                return Mode.NONE
            gate.held += 1
            return Mode.STALL
        return super()._next_mode(method)

    async def _answer(self, *arguments: Any) -> bool:
        gate = self._at_answer.pop(_task(), None)
        if gate is not None:
            gate.held += 1
            while gate.is_shut:
                await asyncio.sleep(0.01)
        return await super()._answer(*arguments)


@contextlib.contextmanager
def gate_proxy(port: int) -> Iterator[GateProxy]:
    """A proxy to a port of loopback, whether anybody listens there yet or not."""
    proxy = GateProxy(port)
    is_up = threading.Event()
    ending: list[Callable[[], object]] = []

    async def run() -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with proxy.running():
            ending.append(lambda: loop.call_soon_threadsafe(over.set))
            is_up.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="gate proxy")
    thread.start()
    assert is_up.wait(PATIENCE_SECONDS), "the proxy does not start"
    try:
        yield proxy
    finally:
        ending[0]()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive(), "the proxy does not end"


def _task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None
    return task
