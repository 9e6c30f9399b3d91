"""The format of a large blob's file, as pure functions. docs/disk-format.md is its description.

    content | one 8-byte checksum a chunk | footer of 16 bytes

The content comes first and unchanged, so a file can be saved with nothing but ``head -c``. A
checksum is XXH3-64 of CHUNK_BYTES of content (the last chunk may be shorter), seeded with the
chunk's number, big-endian. The footer is the magic ``tierce``, a zero byte, the format version
(1), and the content's size as 8 bytes, big-endian. The table lives in the file itself so that a blob is
made visible by one rename, and needs no index to be found again.

The checksums find damage in a part of a blob without reading all of it; they prove nothing about
origin. The digest in the file's name stays the only truth: where a checksum does not fit, the
whole content is hashed to learn whether the content or the table is bad.
"""

import struct
from typing import Final

from xxhash import xxh3_64_intdigest

from tierce.core.limits import CHUNK_BYTES

VERSION: Final = 1
FOOTER: Final = struct.Struct(">7sBQ")
MAGIC: Final = b"tierce\0"
SUM_BYTES: Final = 8


def chunk_count(content_bytes: int) -> int:
    """How many chunks a content of this size has."""
    return -(-content_bytes // CHUNK_BYTES)


def file_bytes(content_bytes: int) -> int:
    """The size of the file that holds a content of this size."""
    return content_bytes + SUM_BYTES * chunk_count(content_bytes) + FOOTER.size


def content_bytes(file_size: int) -> int | None:
    """The inverse of :func:`file_bytes`; None if no content makes a file of this size."""
    room = file_size - FOOTER.size
    if room < 0:
        return None
    chunks = -(-room // (CHUNK_BYTES + SUM_BYTES))
    size = room - SUM_BYTES * chunks
    return size if size >= 0 and chunk_count(size) == chunks else None


def sums(data: bytes | bytearray | memoryview, first_chunk: int) -> bytes:
    """The checksums of consecutive chunks; ``data`` starts at the chunk numbered ``first_chunk``."""
    view = memoryview(data)
    starts = range(0, len(view), CHUNK_BYTES)
    return b"".join(
        xxh3_64_intdigest(view[start : start + CHUNK_BYTES], seed=number).to_bytes(SUM_BYTES)
        for number, start in enumerate(starts, first_chunk)
    )


def footer(content_size: int) -> bytes:
    """The last bytes of the file."""
    return FOOTER.pack(MAGIC, VERSION, content_size)


def footer_fits(tail: bytes, content_size: int) -> bool:
    """Whether these bytes are the footer of a content of this size, in a version read here."""
    return tail == footer(content_size)
