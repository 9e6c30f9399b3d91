"""How records are written and sent: a version byte, then MessagePack.

The one place that reads versions. Structs are arrays on the wire, so a later version may add fields
at the end, with defaults, and both sides still understand each other; what can't be read so gets a
version of its own.
"""

from typing import Any, TypeVar

import msgspec

from tierce.core.errors import BadRequest

T = TypeVar("T")

VERSION = 1
_PREFIX = bytes([VERSION])
_encoder = msgspec.msgpack.Encoder()


def encode(record: Any) -> bytes:
    """A record in the current version."""
    return _PREFIX + _encoder.encode(record)


def decode(data: bytes | memoryview, kind: type[T], what: str) -> T:
    """Read what :func:`encode` wrote. Raises BadRequest, naming ``what``, for anything else."""
    if not data:
        raise BadRequest(f"the {what} is empty", hint="Run the same version on both nodes.")
    if data[0] != VERSION:
        raise BadRequest(
            f"the {what} has version {data[0]}, and this program reads {VERSION}",
            hint="Upgrade the older node of the two.",
        )
    try:
        return msgspec.msgpack.decode(memoryview(data)[1:], type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(
            f"the {what} can't be read: {error}", hint="Run the same version on both nodes."
        ) from None
