"""Settings shared by all tests, and where they keep their data."""

import contextlib
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tierce.core.limits import GIB
from tierce.testing.rclone import KEYS, RcloneServer, serve_s3

# A loaded machine is no failure: only what is asserted counts.
settings.register_profile(
    "tierce", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("tierce")

# Every process reads all authorities of the machine when it starts, which took a tenth of the start.
# Nothing here asks a server outside; tests that have an authority name it to those who are to trust it.
os.environ.setdefault("SSL_CERT_FILE", os.devnull)

_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 2 * GIB
# Set it to have everything on a disk, where what a test that failed has left can be looked at.
_ON_DISK = "TIERCE_TESTS_ON_DISK"


def pytest_collection_finish() -> None:
    """Thousands of tests are there to stay: no collection of garbage needs to look at them again."""
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def _directory(on_disk: Path) -> Iterator[Path]:
    """A directory in memory, where no test waits for a disk, or the one given if there is no room."""
    is_small = not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < _ROOM_BYTES
    if os.environ.get(_ON_DISK) or is_small or not os.access(_MEMORY, os.W_OK):
        yield on_disk
        return
    with tempfile.TemporaryDirectory(
        prefix="tierce-test-", dir=_MEMORY, ignore_cleanup_errors=True
    ) as made:
        yield Path(made)


@pytest.fixture
def tmp_path(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory for one test: in memory, but on a disk for nodes that are processes of their own."""
    if request.node.get_closest_marker("procs") is not None:
        yield tmp_path
        return
    with _directory(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def module_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for the tests of one file."""
    with _directory(tmp_path_factory.mktemp("module")) as made:
        yield made


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneServer]:
    """A server of S3 with one bucket, in which each test has a ``prefix``."""
    with serve_s3(tmp_path_factory.mktemp("rclone") / "s3") as server:
        yield server


@pytest.fixture
def s3_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its credentials, in the environment."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A prefix in a shared bucket that only this test uses."""
    return f"p{abs(hash(request.node.nodeid)):x}"
