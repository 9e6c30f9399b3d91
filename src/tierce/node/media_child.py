"""The process that looks into one media file with FFmpeg's libraries, by way of PyAV.

What it reads may be made to harm whoever reads it. So it is a process of its own with tight limits, it
opens no file, and gets the bytes that it asks for from its parent (media_probe.py), over standard input:
a request is an offset and a length, the answer so many bytes. It prints one JSON object, and ends.
"""

import contextlib
import importlib
import io
import json
import os
import resource
import socket
import struct
import sys
from collections import OrderedDict
from typing import Any

REQUEST = struct.Struct("<QI")
BLOCK_BYTES = 256 * 1024
_BLOCKS_KEPT = 32
_MEMORY_BYTES = 2 << 30
_CPU_SECONDS = 15
_TEXT_CHARACTERS = 500
_TAGS_COUNT = 64
_STREAMS_COUNT = 64
_KINDS = ("video", "audio", "subtitles", "attachments", "data")
# Playlists and the like name other files, on this machine and on others: none is opened.
_OPTIONS = {"protocol_whitelist": "none", "probesize": "8000000", "analyzeduration": "8000000"}


class RemoteFile(io.RawIOBase):
    """A file of which the parent has the bytes, asked for a block at a time."""

    def __init__(self, channel: socket.socket, size: int) -> None:
        self._channel = channel
        self._size = size
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._position)
        wanted = left if size < 0 else min(size, left)
        found = bytearray()
        while len(found) < wanted:
            start = self._position // BLOCK_BYTES * BLOCK_BYTES
            block = self._block(start)
            part = block[self._position - start : self._position - start + wanted - len(found)]
            found += part
            self._position += len(part)
        return bytes(found)

    def _block(self, start: int) -> bytes:
        if start in self._blocks:
            self._blocks.move_to_end(start)
            return self._blocks[start]
        length = min(BLOCK_BYTES, self._size - start)
        self._channel.sendall(REQUEST.pack(start, length))
        block = bytearray()
        while len(block) < length:
            more = self._channel.recv(length - len(block))
            if not more:
                raise OSError("the parent gives no more bytes")
            block += more
        self._blocks[start] = bytes(block)
        if len(self._blocks) > _BLOCKS_KEPT:
            self._blocks.popitem(last=False)
        return self._blocks[start]


def describe(av: Any, file: io.RawIOBase, size: int) -> dict[str, Any]:
    """What PyAV (the module ``av``) finds in a file: container and streams, as plain values."""
    with av.open(file, mode="r", options=_OPTIONS, metadata_errors="replace") as container:
        seconds = None if container.duration is None else container.duration / av.time_base
        form = {
            "name": _text(container.format.name),
            "long_name": _text(container.format.long_name),
            "duration_seconds": _number(seconds),
            "bit_rate": container.bit_rate or None,
            "size": size,
            "tags": _tags(container.metadata),
        }
        streams = [_stream(each) for each in list(container.streams)[:_STREAMS_COUNT]]
    return {"format": form, "streams": streams}


def _stream(stream: Any) -> dict[str, Any]:
    seconds = None
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    found: dict[str, Any] = {
        "index": stream.index,
        "type": _text(stream.type),
        "duration_seconds": _number(seconds),
    }
    context = stream.codec_context
    if context is not None:
        found["codec"] = _text(context.name)
        found["codec_long_name"] = _text(context.codec.long_name)
        found["profile"] = None if context.profile is None else _text(context.profile)
        found["bit_rate"] = context.bit_rate or None
    if context is not None and stream.type == "video":
        found["width"] = context.width
        found["height"] = context.height
        found["pixel_format"] = None if context.pix_fmt is None else _text(context.pix_fmt)
        rate = stream.average_rate
        found["frame_rate"] = None if not rate else _number(float(rate))
    if context is not None and stream.type == "audio":
        found["sample_rate"] = context.sample_rate
        found["channels"] = context.layout.nb_channels
        found["layout"] = _text(context.layout.name)
    found["language"] = (
        _text(stream.metadata["language"]) if "language" in stream.metadata else None
    )
    found["tags"] = _tags(stream.metadata)
    return found


def _tags(metadata: Any) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in list(metadata.items())[:_TAGS_COUNT]}


def _text(value: object) -> str:
    return str(value)[:_TEXT_CHARACTERS].encode("utf-8", "replace").decode()


def _number(value: float | None) -> float | None:
    """Rounded to microseconds; JSON has no infinity."""
    return round(value, 6) if value is not None and abs(value) < 1e15 else None


def _limit() -> None:
    """Bound what this process may use. Nothing can be opened from now on."""
    for kind, most in (
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_CPU, _CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def main() -> int:
    """Look into the file of as many bytes as the argument says."""
    try:
        import av  # an optional extra, with a large library behind it: here, and nowhere else
    except ImportError as error:
        sys.stdout.write(json.dumps({"missing": _text(error)}))
        return 0
    for kind in _KINDS:  # PyAV imports them when it meets such a stream; then no file can be opened
        with contextlib.suppress(ImportError):
            importlib.import_module(f"av.{kind}.stream")
    size = int(sys.argv[1])
    channel = socket.socket(fileno=os.dup(0))
    _limit()
    av.logging.set_level(None)
    try:
        found = describe(av, RemoteFile(channel, size), size)
    except (av.FFmpegError, ValueError, MemoryError, OSError) as error:
        found = {"not_media": _text(getattr(error, "strerror", None) or error)}
    sys.stdout.write(json.dumps(found, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
