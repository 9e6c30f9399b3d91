"""The operating system's errors become ours at one place."""

import errno
import os

import pytest

from tierce.core.errors import Corrupt, Full, TierceError, Unavailable, from_os_error


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, Full),
        (errno.EDQUOT, Full),
        (errno.EFBIG, Full),
        (errno.EIO, Corrupt),
        (errno.EMFILE, Unavailable),
        (errno.EROFS, Unavailable),
    ],
)
def test_an_error_of_the_system_is_typed_by_what_to_do(
    number: int, kind: type[TierceError]
) -> None:
    error = from_os_error(OSError(number, os.strerror(number)), "storing a blob")
    assert type(error) is kind
    assert "storing a blob" in error.message
    assert error.hint
