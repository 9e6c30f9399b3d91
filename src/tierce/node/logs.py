"""Logging of a node's processes: text for people, or one JSON object a line. To standard error."""

import json
import logging
import os
import sys
import time
from typing import Any

from tierce.cloud.hiding import without_secrets

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as a JSON object: time, level, logger, message, role, pid, and what ``extra`` holds."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        content: dict[str, Any] = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "role": self._role,
            "pid": os.getpid(),
            "message": record.getMessage(),
        }
        content |= {name: value for name, value in vars(record).items() if name not in _PLAIN}
        if record.exc_info:
            content["traceback"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(content, ensure_ascii=True, default=str)


class TextFormatter(logging.Formatter):
    """Time, level, role and message; control characters in it are escaped."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in record.getMessage())
        line = f"{_stamp(record)} {record.levelname:<7} {self._role}[{os.getpid()}] {message}"
        if not record.exc_info:
            return line
        return f"{line}\n{without_secrets(self.formatException(record.exc_info))}"


def set_up(*, role: str, form: str, level: str) -> None:
    """Configure the process's logging. ``form`` is text or json."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(role) if form == "json" else TextFormatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("asyncio", "aiohttp", "botocore", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _stamp(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"
