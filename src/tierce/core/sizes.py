"""Sizes in bytes and durations in seconds, as people write them.

``parse_size(format_size(n)) == n`` and ``parse_duration(format_duration(s)) == s`` for every value,
so what a program prints can always be pasted back into its settings.
"""

import math
import re
from decimal import Decimal

from tierce.core.errors import BadRequest
from tierce.core.wording import quoted

# A bare K, M or G is left out on purpose: half the world reads it as 1000, the other as 1024.
_SIZE_UNITS = {"": 1, "b": 1} | {
    f"{letter}{ending}": base**power
    for power, letter in enumerate("kmgtp", start=1)
    for ending, base in (("b", 1000), ("ib", 1024))
}
_SHOWN_UNITS = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1024),
]
_DURATION_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}

# The length of a number is bounded before it is converted, which takes quadratic time.
_NUMBER = r"(?=[0-9_.]{1,40}(?![0-9_.]))([0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?)"
_SIZE = re.compile(_NUMBER + r" ?([A-Za-z]{0,3})", re.ASCII)
_DURATION = re.compile(_NUMBER + r" ?([A-Za-z]?)", re.ASCII)

SIZE_HINT = "Write a whole number of bytes, or one with a unit, such as 64KiB, 10MB or 5GiB."
DURATION_HINT = "Write a number of seconds, or one with a unit, such as 30s, 5m or 2h."


def parse_size(value: object) -> int:
    """Bytes from an int or text such as ``64KiB``. Raises BadRequest for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    unit = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise BadRequest(f"{quoted(value)} is not a size", hint=SIZE_HINT)
    size = Decimal(match[1].replace("_", "")) * unit
    if size != size.to_integral_value():
        raise BadRequest(f"{quoted(value)} is not a whole number of bytes", hint=SIZE_HINT)
    return int(size)


def format_size(size_bytes: int) -> str:
    """The shortest exact text: ``5GiB``, ``1536KiB``, ``1000``."""
    for name, unit in _SHOWN_UNITS:
        if size_bytes and size_bytes % unit == 0:
            return f"{size_bytes // unit}{name}"
    return str(size_bytes)


def parse_duration(value: object) -> float:
    """Seconds from a number or text such as ``5m``. Raises BadRequest for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    unit = _DURATION_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise BadRequest(f"{quoted(value)} is not a duration", hint=DURATION_HINT)
    return float(Decimal(match[1].replace("_", "")) * unit)


def format_duration(seconds: float) -> str:
    """Seconds with their unit and without needless digits: ``20s``, ``0.5s``."""
    text = format(Decimal(repr(float(seconds))), "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) + "s"
