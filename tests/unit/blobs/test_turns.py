"""One upload of a blob at a time, over all processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierce.blobs.turns import Turns
from tierce.core.digest import Digest, new_hasher

ONE, TWO = (Digest("blake3", new_hasher("blake3", name).digest()) for name in (b"one", b"two"))

_TAKE = """
import sys
from pathlib import Path
from tierce.blobs.turns import Turns
from tierce.core.digest import Digest
print(Turns(Path(sys.argv[1])).take(Digest.parse(sys.argv[2])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Turns, Turns]]:
    one, two = (Turns(tmp_path / "holds" / "uploads") for _ in range(2))
    yield one, two
    one.close()
    two.close()


def taken(turns: Turns, digest: Digest) -> int:
    turn = turns.take(digest)
    assert turn is not None
    return turn


def test_a_blob_is_one_upload_s_at_a_time(both: tuple[Turns, Turns]) -> None:
    one, two = both
    turn = taken(one, ONE)
    assert (one.take(ONE), two.take(ONE)) == (None, None)
    taken(two, TWO)
    assert one.take(TWO) is None
    one.end(turn)
    taken(two, ONE)


def test_closing_ends_all_turns(both: tuple[Turns, Turns]) -> None:
    one, two = both
    turn = taken(one, ONE)
    taken(one, TWO)
    one.close()
    one.end(turn)
    taken(two, ONE)
    taken(two, TWO)


def test_a_process_that_dies_ends_its_turns(both: tuple[Turns, Turns]) -> None:
    turns, _ = both
    file = turns._path
    process = subprocess.Popen(
        [sys.executable, "-c", _TAKE, str(file), str(ONE)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() != "None"
        assert turns.take(ONE) is None
        process.kill()
    taken(turns, ONE)
    assert os.path.exists(file)
