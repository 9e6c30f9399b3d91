"""What happened in a simulated run, in order, and the digest of it all.

Every line is a simulated time and what happened then. Two runs are the same run if their digests are
equal. The last lines are kept, for whoever has to find out what went wrong.
"""

import asyncio
import hashlib
from collections import deque
from typing import TextIO

TAIL_LINES = 4000


class Trace:
    """Notes of events. ``echo`` is a text file that gets every line, while the run goes on."""

    def __init__(self, echo: TextIO | None = None) -> None:
        self._hasher = hashlib.sha256()
        self._echo = echo
        self.lines = 0
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def note(self, event: str) -> None:
        """Remember an event, at the running loop's time."""
        line = f"{asyncio.get_running_loop().time():.6f} {event}"
        self._hasher.update(line.encode())
        self._hasher.update(b"\n")
        self.lines += 1
        self.tail.append(line)
        if self._echo is not None:
            self._echo.write(line + "\n")

    @property
    def digest(self) -> str:
        """The digest of all lines so far, in hex."""
        return self._hasher.hexdigest()
