"""Calling a node over real sockets: plain blocking calls, and raw ones that see every byte.

A call never raises for a status; a body that ended before its announced length is given back as
such, with ``complete`` False, because that is what many tests are about.
"""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import IO, Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tierce.core.digest import Digest
from tierce.testing.processes import PATIENCE_SECONDS, Address

Body = bytes | Iterable[bytes] | IO[bytes]
PAGE_BLOBS = 5000


class Reply(NamedTuple):
    """An answer. Header names are in lower case; ``complete`` says that the body came whole."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool = True

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def connect(address: Address, timeout: float = PATIENCE_SECONDS) -> http.client.HTTPConnection:
    """A connection for many calls; close it."""
    return http.client.HTTPConnection(address.host, address.port, timeout=timeout)


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Body | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """One request on a connection. Raises OSError or HTTPException when no answer comes."""
    try:
        connection.request(method, path, body, dict(headers or {}))
    except ConnectionError:
        if connection.sock is None:
            raise
        # A server that refuses a body may close before it has come; its answer is still there.
    response = connection.getresponse()
    found = {name.lower(): value for name, value in response.getheaders()}
    try:
        return Reply(response.status, found, response.read())
    except http.client.IncompleteRead as error:
        connection.close()
        return Reply(response.status, found, error.partial, complete=False)
    except ConnectionError:
        connection.close()
        return Reply(response.status, found, b"", complete=False)


def call(
    address: Address,
    method: str,
    path: str,
    body: Body | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = PATIENCE_SECONDS,
) -> Reply:
    """One request on a connection of its own."""
    with contextlib.closing(connect(address, timeout)) as connection:
        return exchange(connection, method, path, body, {"Connection": "close", **(headers or {})})


def get(address: Address, digest: Digest, byte_range: str = "") -> Reply:
    """Fetch a blob, or a range such as ``0-99`` of it."""
    headers = {"Range": f"bytes={byte_range}"} if byte_range else {}
    return call(address, "GET", f"/v1/blobs/{digest}", headers=headers)


def put(address: Address, data: bytes, algorithm: str = "blake3") -> Digest:
    """Store a blob, and see it acknowledged."""
    digest = Digest.of(data, algorithm)
    reply = call(address, "PUT", f"/v1/blobs/{digest}", data)
    assert reply.status in (200, 201), reply
    return digest


def status(address: Address) -> dict[str, Any]:
    """What ``/v1/status`` says."""
    reply = call(address, "GET", "/v1/status")
    assert reply.status == 200, reply
    answer: dict[str, Any] = reply.json
    return answer


def listing(address: Address) -> dict[Digest, int]:
    """Every blob that the node lists, with its size, page after page."""
    found: dict[Digest, int] = {}
    after = ""
    with contextlib.closing(connect(address)) as connection:
        while True:
            page = exchange(connection, "GET", f"/v1/blobs?limit={PAGE_BLOBS}{after}").json
            for entry in page["blobs"]:
                found[Digest.parse(entry["digest"])] = entry["size"]
            if page["next"] is None:
                return found
            after = f"&after={page['next']}"


def metric(address: Address, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels; 0 if there are none."""
    page = call(address, "GET", "/metrics").body.decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


class Wire:
    """A raw connection: sends what it is told, and reads no more than it is asked to.

    ``buffer_bytes`` bounds what the kernel takes in ahead of the reader; 0 leaves that to it.
    """

    def __init__(self, address: Address, *, buffer_bytes: int = 0) -> None:
        self.socket = socket.socket()
        if buffer_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.socket.settimeout(PATIENCE_SECONDS)
        try:
            self.socket.connect((address.host, address.port))
        except OSError:
            self.socket.close()
            raise
        self._read = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, method: str, path: str, **headers: str | int) -> None:
        """Send a request's head. Underscores in the names of headers stand for dashes."""
        lines = [f"{method} {path} HTTP/1.1", "Host: node"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode())

    def head(self) -> tuple[int, dict[str, str]]:
        """Read one answer's status and headers, an interim answer's too."""
        while b"\r\n\r\n" not in self._read:
            more = self.socket.recv(1 << 16)
            if not more:
                raise ConnectionResetError(f"the connection ended after {self._read!r}")
            self._read += more
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    def reply(self) -> Reply:
        """Read one whole answer."""
        code, headers = self.head()
        length = int(headers.get("content-length", 0))
        body = self.rest(length)
        return Reply(code, headers, body, complete=len(body) == length)

    def rest(self, length: int) -> bytes:
        """Read so many bytes of a body; fewer if the connection ends before."""
        parts, missing = [self._read[:length]], length - len(self._read)
        self._read = self._read[length:]
        while missing > 0:
            more = self.socket.recv(min(missing, 1 << 20))
            if not more:
                break
            parts.append(more)
            missing -= len(more)
        return b"".join(parts)

    def ended(self) -> bool:
        """Whether the node has ended the connection, having sent nothing more; does not wait."""
        self.socket.setblocking(False)
        try:
            return self.socket.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        finally:
            self.socket.settimeout(PATIENCE_SECONDS)


def steadily(data: bytes, step: int, pause: float) -> Iterator[bytes]:
    """The data in steps, with a pause after each: a body that a client sends at its leisure."""
    for start in range(0, len(data), step):
        yield data[start : start + step]
        time.sleep(pause)
