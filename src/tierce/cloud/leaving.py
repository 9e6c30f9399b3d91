"""The end of a process that used OpenDAL.

Its threads hand results over to Python, and let go of them a moment later. If the interpreter is being
taken down just then, the process is aborted: about one in a hundred that ended right after an answer,
with SIGABRT in place of its exit code (https://github.com/PyO3/pyo3-async-runtimes/issues/40). Nothing
tells when they are done, so they are given some time.
"""

import atexit
import time

_SECONDS = 0.1


def leave_in_peace() -> None:
    """Before OpenDAL is first used: have this process's end wait for its threads, once."""
    atexit.unregister(_wait)
    atexit.register(_wait)


def _wait() -> None:
    time.sleep(_SECONDS)
