"""Runs client commands in this process, through ``main``, against a fake server in a thread."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from tests.unit.client.fake_server import FakeServer

from tierce.cli import remote
from tierce.cli.main import main
from tierce.client import Retry


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: bytes
    err: str

    def lines(self) -> list[str]:
        """Stdout as lines of text."""
        return self.out.decode().splitlines()

    def objects(self) -> list[dict[str, Any]]:
        """Stdout as JSON lines."""
        return [json.loads(line) for line in self.lines()]


class Tool:
    """``tierce`` with a server."""

    def __init__(self, server: FakeServer, capture: pytest.CaptureFixture[bytes]) -> None:
        self.server = server
        self._capture = capture

    def run(self, *arguments: str) -> Ran:
        """Run a command in this process."""
        self._capture.readouterr()
        try:
            code = main(arguments)
        except SystemExit as ending:
            code = int(str(ending.code))
        captured = self._capture.readouterr()
        return Ran(code, captured.out, captured.err.decode())

    def run_apart(self, *arguments: str, stdin: bytes) -> Ran:
        """Run a command in a process of its own, with ``stdin`` through a pipe."""
        done = subprocess.run(
            [sys.executable, "-m", "tierce.cli.main", *arguments],
            input=stdin,
            capture_output=True,
            env={**os.environ, "TIERCE_URL": self.server.url},
            check=False,
            timeout=60,
        )
        return Ran(done.returncode, done.stdout, done.stderr.decode())


@contextmanager
def tool_with_server(
    monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[bytes]
) -> Iterator[Tool]:
    """A tool whose commands find the server, and don't wait long before they try again."""
    quick = Retry(attempts=2, backoff_min_seconds=0.001, backoff_max_seconds=0.001)
    monkeypatch.setattr(remote, "RETRY", quick)
    monkeypatch.delenv("TIERCE_TOKEN", raising=False)
    with FakeServer().serving_in_thread() as server:
        monkeypatch.setenv("TIERCE_URL", server.url)
        yield Tool(server, capture)
