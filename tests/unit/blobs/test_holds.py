"""Locks on blobs, when the file system of the data directory fails."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from tierce.blobs.holds import Holds
from tierce.core.digest import Digest

DIGEST = Digest.of(b"held")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("is_held", [False, True])
def test_a_lock_that_fails_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_held: bool
) -> None:
    holds = Holds(tmp_path)
    before = open_files()
    hold = holds.share(DIGEST) if is_held else None

    def failing(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", failing)
    with pytest.raises(OSError, match="no locks"):
        if hold is None:
            holds.alone(DIGEST)
        else:
            holds.release(DIGEST, hold)
    assert open_files() == before
