"""The data directory: who owns it, whose it is, and what version its contents have.

``node.toml`` is written once, at the first start. A lock on ``lock`` is held by every process of the
running node, so the directory stays taken until the last of them is gone, however it went.
"""

import contextlib
import fcntl
import logging
import os
import re
import shutil
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ulid import ULID

from tierce.blobs.local import make_directories
from tierce.blobs.quarantine import sync_directory
from tierce.blobs.spool import sweep
from tierce.core.errors import BadRequest, Conflict, Corrupt, NotFound, from_os_error

log = logging.getLogger(__name__)

FORMAT_VERSION = 2
EPOCH = "epoch"
"""The file in ``run/`` with the name of this run of the node, for the feed (names/changes.py)."""
_MEMORY = Path("/dev/shm")  # noqa: S108 - what is there by this name and not ours is not used
_HEADER = "# Written by Tierce at the first start of this node. Keep it with the data.\n"


class Identity(NamedTuple):
    """What ``node.toml`` says: the node's id, the format of the data, and when it was made."""

    node_id: str
    format_version: int
    created: str


def epoch_name(data: Path) -> str:
    """The name of this run of the node, the same for all its processes."""
    return (data / "run" / EPOCH).read_text()


class DataDirectory:
    """An owned data directory. Open it with :meth:`open`; it stays locked until :meth:`close`."""

    def __init__(self, path: Path, lock_fd: int, identity: Identity) -> None:
        self.path = path
        self.lock_fd = lock_fd
        self.identity = identity

    @classmethod
    def open(cls, path: Path, node_id: str = "", files: Path | None = None) -> "DataDirectory":
        """Take a data directory, making it if need be, and sweep away what a crash left.

        Raises Conflict if another node has it, Corrupt if it is not understood, BadRequest if it
        can't be used.
        """
        path = path.resolve()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock_fd = take_lock(path)
            try:
                identity = _identify(path, node_id)
                make_directories(path, files)
                run = path / "run"
                shutil.rmtree(run, ignore_errors=True)
                run.mkdir()
                (run / EPOCH).write_text(str(ULID()))
                swept = sweep(path / "tmp")
            except BaseException:
                os.close(lock_fd)
                raise
        except OSError as error:
            if isinstance(error, (PermissionError, NotADirectoryError, FileExistsError)):
                raise BadRequest(
                    f"{path} can't be used as a data directory: {error.strerror}",
                    hint="Choose a directory that this user may write to, with --data.",
                ) from error
            raise from_os_error(error, f"opening {path}") from error
        if swept:
            log.info("swept away %d unfinished uploads", swept)
        return cls(path, lock_fd, identity)

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self.lock_fd)


def take_lock(path: Path) -> int:
    """Lock a data directory; the lock lives as long as the descriptor. Raises Conflict, OSError."""
    fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise Conflict(
            f"another node is running on {path}" + (f" (process {owner})" if owner else ""),
            hint="Stop it first, or give this one a directory of its own with --data.",
        ) from None
    # In this order, which gives no block back that a full disk would not give again.
    os.ftruncate(fd, os.pwrite(fd, f"{os.getpid()}\n".encode(), 0))
    return fd


def metrics_place(path: Path) -> Path:
    """Where in memory the processes on a data directory share their metrics."""
    stat = path.stat()
    return _MEMORY / f"tierce-metrics-{stat.st_dev:x}-{stat.st_ino:x}"


@contextlib.contextmanager
def metrics_directory(path: Path) -> Iterator[Path]:
    """An empty directory for the metrics of an owned data directory's processes; removed at the end.

    The processes map its files into memory, and a process that writes to such a page is killed
    when a full disk has no room for it. So it is kept in memory, if that can be had.
    """
    place = metrics_place(path)
    try:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
    except OSError:
        place = path / "run" / "metrics"
        place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def read_identity(path: Path) -> Identity:
    """What a data directory's node.toml says. Raises NotFound, or Corrupt if it is not understood."""
    file = path / "node.toml"
    try:
        content = tomllib.loads(file.read_text())
        identity = Identity(
            str(content["node_id"]), int(content["format_version"]), str(content.get("created", ""))
        )
    except FileNotFoundError:
        raise NotFound(
            f"{path} is not a data directory: it has no node.toml",
            hint="Give the directory that the node was started with, with --data.",
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(
            f"{file} is damaged: {error}",
            hint=f'It needs node_id = "..." and format_version = {FORMAT_VERSION}.',
        ) from error
    if identity.format_version != FORMAT_VERSION:
        raise Corrupt(
            f"{path} has format version {identity.format_version},"
            f" and this program reads {FORMAT_VERSION}",
            hint="Use the version of Tierce that wrote it, or a newer one.",
        )
    return identity


def _identify(path: Path, node_id: str) -> Identity:
    """The identity of a directory, made at its first use, with the id that the settings ask for."""
    try:
        identity = read_identity(path)
    except NotFound:
        if (path / "lmdb" / "data.mdb").exists() or any((path / "files").glob("*")):
            raise Corrupt(
                f"{path} holds blobs, but its node.toml is missing",
                hint="Restore node.toml from a backup, or write one with: "
                f'node_id = "..." and format_version = {FORMAT_VERSION}.',
            ) from None
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        identity = Identity(node_id or str(ULID()), FORMAT_VERSION, created)
        _write(path / "node.toml", identity)
    if node_id and node_id != identity.node_id:
        log.warning("the node's id changes from %s to %s", identity.node_id, node_id)
        identity = identity._replace(node_id=node_id)
        _write(path / "node.toml", identity)
    return identity


def _write(file: Path, identity: Identity) -> None:
    """Replace node.toml durably."""
    if not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}", identity.node_id):
        raise BadRequest(
            f"{identity.node_id[:40]!a} is not a node id",
            hint="Use letters, digits and dashes, such as a UUID or ULID.",
        )
    text = (
        f'{_HEADER}node_id = "{identity.node_id}"\n'
        f'format_version = {identity.format_version}\ncreated = "{identity.created}"\n'
    )
    temporary = file.with_suffix(".new")
    with temporary.open("w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    temporary.rename(file)
    sync_directory(file.parent)
