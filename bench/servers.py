"""The servers under measurement, each started on a free port and stopped at the end."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

_NGINX_CONFIGURATION = """
worker_processes 2; daemon off; pid {work}/nginx.pid; error_log {work}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000;
  open_file_cache max=20000 inactive=600s; open_file_cache_valid 600s;
  client_body_temp_path {work}/nginx-body; proxy_temp_path {work}/nginx-proxy;
  fastcgi_temp_path {work}/nginx-1; uwsgi_temp_path {work}/nginx-2; scgi_temp_path {work}/nginx-3;
  default_type application/octet-stream;
  server {{ listen 127.0.0.1:{port} reuseport; root {root}; }}
}}
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def tierce(
    data: Path, *flags: str, workers: int = 2, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """A node; yields the base URL of its native door."""
    with node(data, *flags, workers=workers, environment=environment) as addresses:
        yield "http://" + addresses["native"]


@contextlib.contextmanager
def node(
    data: Path,
    *flags: str,
    workers: int = 2,
    doors: Sequence[str] = ("native",),
    environment: Mapping[str, str] | None = None,
) -> Iterator[dict[str, str]]:
    """A node with these doors; yields their addresses, HOST:PORT, and the one for other nodes."""
    command = [
        sys.executable, "-c", "import sys; from tierce.cli.main import main; sys.exit(main())",
        "serve", "--data", str(data), "--workers", str(workers),
        *(flag for door in doors for flag in ("--listen", f"{door}=127.0.0.1:0")),
        "--reserve-bytes", "0", "--private", "127.0.0.1:0", *flags,
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**_environment(), **(environment or {})}
    )
    assert process.stdout is not None
    try:
        addresses: dict[str, str] = {}
        process.stdout.readline()
        while len(addresses) <= len(doors):
            line = process.stdout.readline()
            assert line, "the node ended"
            name, _, address = line.partition(": ")[2].strip().partition("=")
            addresses[name] = address
        yield addresses
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def nginx(root: Path, work: Path) -> Iterator[str]:
    """nginx with two workers over a directory of files; yields its base URL."""
    port = free_port()
    file = work / "nginx.conf"
    file.write_text(_NGINX_CONFIGURATION.format(work=work, root=root, port=port))
    with _process([NGINX, "-c", str(file), "-p", str(work), "-g", _nginx_user()], port):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def file_per_blob(directory: Path) -> Iterator[str]:
    """An aiohttp server that keeps each body in a synced file of its own; yields its base URL."""
    port = free_port()
    script = Path(__file__).with_name("file_per_blob.py")
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            command = [sys.executable, str(script), str(directory), str(port)]
            stack.enter_context(_process(command, port))
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _process(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        else:
            raise RuntimeError(f"{command[0]} did not start")
        yield
    finally:
        process.terminate()
        process.wait()


def _nginx_user() -> str:
    return "user root;" if os.geteuid() == 0 else "worker_priority 0;"


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TIERCE_")}
