"""Memory does not grow with the size of a blob."""

import contextlib
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tierce.core.digest import Digest, new_hasher
from tierce.core.limits import MIB
from tierce.testing.calls import connect, exchange
from tierce.testing.processes import NodeProcess

pytestmark = pytest.mark.procs

SIZE = 900 * MIB  # three times the limit
LIMIT_BYTES = 300 * MIB
CALL_SECONDS = 200.0


class Peak:
    """Watches the memory of all processes of a node: the sum of their proportional set sizes."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.bytes = 0
        self.samples = 0

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        family = self._node.family()
        while not self._over.wait(0.05):
            with contextlib.suppress(psutil.NoSuchProcess):
                total = sum(process.memory_full_info().pss for process in family)
                self.bytes = max(self.bytes, total)
                self.samples += 1


def _blocks() -> Iterator[bytes]:
    block = random.Random(2).randbytes(MIB)
    for number in range(SIZE // MIB):
        yield number.to_bytes(8) + block[8:]


@pytest.mark.timeout(600)
def test_memory_stays_small_for_a_large_blob(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data", workers=2) as node:
        node.start()
        with (
            Peak(node) as peak,
            contextlib.closing(connect(node.address, CALL_SECONDS)) as connection,
        ):
            headers = {"Content-Length": str(SIZE)}
            reply = exchange(connection, "POST", "/v1/blobs", _blocks(), headers)
            assert reply.status == 201
            digest = Digest.parse(reply.json["digest"])

            connection.request("GET", f"/v1/blobs/{digest}")
            response = connection.getresponse()
            hasher = new_hasher(digest.algorithm)
            received = 0
            while piece := response.read(MIB):
                hasher.update(piece)
                received += len(piece)
        assert received == SIZE
        assert hasher.digest() == digest.raw
        assert peak.samples > 20
        assert peak.bytes < LIMIT_BYTES, f"{peak.bytes / MIB:.0f} MiB at the peak"
        node.stop()
    shutil.rmtree(node.data)
