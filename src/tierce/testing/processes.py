"""A node as real processes: started as an operator would, watched, killed as a power cut would.

Every process of a node under test has a mark in its environment, and is found by that, whoever its
parent is by now: workers outlive a supervisor that is killed, and a node that starts has processes
that nobody has heard of yet. So :meth:`NodeProcess.kill` really leaves none, however a test ends.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import psutil

from tierce.core.settings import SETTINGS
from tierce.node.directory import metrics_place

T = TypeVar("T")

# What a loaded machine may need for anything that takes a moment on an idle one.
PATIENCE_SECONDS = 30.0
_MARK = "TIERCE_TEST_NODE"
_LISTEN = re.compile(r"^tierce: ([\w-]+)=(127\.0\.0\.1):(\d+)$", re.MULTILINE)


class Address(str):
    """``HOST:PORT`` of a door."""

    @property
    def host(self) -> str:
        return self.rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.rpartition(":")[2])


class Ended(AssertionError):
    """A node that should run has ended."""


def wait_for(
    condition: Callable[[], T], what: str, *, seconds: float = PATIENCE_SECONDS, pause: float = 0.02
) -> T:
    """Ask until the answer is true, and return it. Raises AssertionError when the time is up."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(pause)
    return answer


class NodeProcess:
    """A node on a data directory, that can be started many times. Use it as a context manager.

    Keyword arguments are settings; ``environment`` adds variables, and a ``wrapper`` is a command
    that starts the node's. Output goes to ``stdout.log`` and ``stderr.log`` in ``logs``, which is
    beside the data directory unless it is given, and stderr is kept over restarts.
    """

    def __init__(
        self,
        data: Path,
        *,
        doors: Sequence[str] = ("native",),
        environment: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        logs: Path | None = None,
        **settings: object,
    ) -> None:
        self.data = data
        self.settings: dict[str, object] = {
            "workers": 1, "reserve_bytes": 0, "private": "127.0.0.1:0", **settings
        }  # fmt: skip
        if "listen" not in self.settings:
            self.settings["listen"] = [f"{door}=127.0.0.1:0" for door in doors]
        logs = logs or data.parent / f"{data.name}-logs"
        logs.mkdir(exist_ok=True)
        self.stdout, self.stderr = logs / "stdout.log", logs / "stderr.log"
        self.addresses: dict[str, Address] = {}
        self._mark = secrets.token_hex(8)
        self._environment = dict(environment or {})
        self._wrapper = wrapper
        self._supervisor: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "NodeProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def address(self) -> Address:
        """Where the native door answers."""
        return self.addresses["native"]

    @property
    def pid(self) -> int:
        """The first process: the supervisor, or the whole node if it has one worker."""
        assert self._supervisor is not None, "the node was never started"
        return self._supervisor.pid

    @property
    def log(self) -> str:
        """All that the node has said on standard error."""
        return self.stderr.read_text(errors="replace") if self.stderr.exists() else ""

    def start(self) -> "NodeProcess":
        """Start, and wait until every door answers. Raises Ended if it does not come up."""
        self.launch()
        expected = len(self.settings["listen"]) + 1  # type: ignore[arg-type]

        def ready() -> bool:
            if self.exit_code() is not None:
                raise Ended(f"the node ended with {self.exit_code()}:\n{self.log[-4000:]}")
            self.addresses = {
                door: Address(f"{host}:{port}")
                for door, host, port in _LISTEN.findall(self.stdout.read_text())
            }
            return len(self.addresses) == expected

        wait_for(ready, "the node to be ready")
        return self

    def launch(self) -> None:
        """Start without waiting for anything."""
        assert not self.family(), "the node is running already"
        assert self._reaped(), "the node is ending"
        self.addresses = {}
        keep = {name: text for name, text in os.environ.items() if not _is_ours(name)}
        with self.stdout.open("wb") as out, self.stderr.open("ab") as err:
            self._supervisor = subprocess.Popen(
                [*self._wrapper, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**keep, **self._environment, _MARK: self._mark},
                cwd=self.stdout.parent,
                start_new_session=True,
            )

    def command(self) -> list[str]:
        """The command line."""
        words = [sys.executable, "-m", "tierce", "serve", "--data", str(self.data)]
        for name, value in self.settings.items():
            flag = SETTINGS[name].flag
            if value is True:
                words.append(flag)
            elif isinstance(value, (list, tuple)):
                words += [word for each in value for word in (flag, str(each))]
            else:
                words += [flag, str(value)]
        return words

    def family(self) -> list[psutil.Process]:
        """Every living process of this node, the first one first."""
        first = self._supervisor.pid if self._supervisor is not None else 0
        return sorted(self._marked(), key=lambda process: process.pid != first)

    def roles(self) -> dict[str, psutil.Process]:
        """The processes that a supervisor started, by role: ``agent``, ``worker-1`` and so on."""
        found = {}
        for process in self._marked():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                words = process.cmdline()
                if "tierce.role" in words:
                    found[words[-1]] = process
        return found

    def kill(self) -> None:
        """The power cut: SIGKILL to every process, until there is none."""

        doomed: set[psutil.Process] = set()

        def dead() -> bool:
            found = self.family()
            doomed.update(found)
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            return not found and all(map(_gone, doomed)) and self._reaped()

        wait_for(dead, "the node's processes to die", pause=0.005)
        if self.data.is_dir():
            shutil.rmtree(metrics_place(self.data), ignore_errors=True)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the first process only, as a service manager's stop or ``kill`` does."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for the end of all processes; returns the first one's exit code."""
        wait_for(lambda: self.exit_code() is not None, "the node to end", seconds=seconds)
        wait_for(lambda: not self.family(), "the node's last process to end", seconds=seconds)
        code = self.exit_code()
        assert code is not None
        return code

    def stop(self) -> None:
        """Stop in order, and hold the node to a clean end: exit code 0, no traceback in the log."""
        self.signal(signal.SIGTERM)
        code = self.wait()
        assert code == 0, f"exit code {code}:\n{self.log[-4000:]}"
        assert "Traceback" not in self.log, self.log[-4000:]

    def exit_code(self) -> int | None:
        """The first process's exit code, or None while it runs."""
        assert self._supervisor is not None, "the node was never started"
        return self._supervisor.poll()

    def spools(self) -> list[str]:
        """The names of unfinished uploads."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(self.data / "tmp"))
        return []

    def _marked(self) -> Iterator[psutil.Process]:
        # Read here: psutil would also ask each process of the machine when it was started.
        marked = f"{_MARK}={self._mark}".encode()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(psutil.Error, OSError):
                if marked in _environment_of(pid).split(b"\0"):
                    yield psutil.Process(int(pid))

    def _reaped(self) -> bool:
        return self._supervisor is None or self._supervisor.poll() is not None


def _environment_of(pid: str) -> bytes:
    """The variables that a process was started with; none if it is a zombie."""
    with open(f"/proc/{pid}/environ", "rb", buffering=0) as opened:
        return opened.read()


def _gone(process: psutil.Process) -> bool:
    """Whether a killed process has let go of everything: also of what its last thread held."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True


def _is_ours(name: str) -> bool:
    """Variables that would change how a node runs."""
    return name.startswith(("TIERCE_", "CASK_", "PROMETHEUS_", "PYTEST_"))
