"""What a process asks its machine: which processes there are, and the time."""

import os
import time


class Host:
    """The machine that a process runs on, as the process sees it."""

    def pid(self) -> int:
        """The number of this process."""
        return os.getpid()

    def is_dead(self, pid: int) -> bool:
        """Whether there is no such process."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False  # somebody else's
        return False

    def seconds(self) -> float:
        """A clock that goes on while the machine sleeps."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


HOST = Host()
