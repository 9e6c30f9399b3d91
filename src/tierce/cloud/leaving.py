"""The end of a process that used OpenDAL.

Its threads hand results over to Python, and let go of them a moment later. If the interpreter is being
taken down just then, the process is aborted: about one in a hundred that ended right after an answer,
with SIGABRT in place of its exit code (https://github.com/PyO3/pyo3-async-runtimes/issues/40). Nothing
tells when they are done. So programs of ours end without taking the interpreter down, and for programs
of others that use our modules its end waits a little.
"""

import atexit
import logging
import os
import sys
import time
from typing import NoReturn

_SECONDS = 0.1
_used: list[str] = []


def leave_in_peace() -> None:
    """Before OpenDAL is first used: remember that this process has used it."""
    if not _used:
        _used.append("opendal")
        atexit.register(_wait)


def end(code: int) -> NoReturn:
    """End this process with an exit code; all that is to be closed is closed already."""
    if _used:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _wait() -> None:
    time.sleep(_SECONDS)
