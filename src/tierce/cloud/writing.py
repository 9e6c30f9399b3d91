"""Writing an object, whole or not at all.

Object stores take the content in one request, or in parts that become an object only at the end.
Services that write in place get it under another name, which is then changed to the right one.

A writer of OpenDAL is never used as a context manager here: leaving that completes the object, also
after an error. One that is given up is dropped, and never completes.
"""

import asyncio
import functools
import re
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Protocol

import opendal
from opendal.options import WriteKwargs

from tierce.cloud.failures import OPENDAL_ERRORS
from tierce.cloud.retrying import Retrying
from tierce.core.errors import Corrupt
from tierce.core.limits import MIB, PIECE_BYTES

CLOUD_PART_BYTES = 8 * MIB
"""How much of a large upload goes into one request. Three times as much is in memory at most."""
CLOUD_PARTS_COUNT = 9_000
"""S3 takes 10,000 parts."""
CLOUD_WHOLE_BYTES = 64 * MIB
"""The largest object for a service that takes it in one piece only: that is held in memory."""

PART_MARK = ".tierce-part-"
"""In the names of what is written in place, until it is whole."""
_PART = re.compile(rf"(.+){re.escape(PART_MARK)}[0-9a-f]{{16}}")
_IN_PLACE = ("alluxio", "fs", "ftp", "hdfs-native", "webdav", "webhdfs")
"""Services where a write that was broken off may be seen."""


class Content(Protocol):
    """Bytes to be sent; ``data`` is all of them where they are in memory, else there is ``stream``."""

    @property
    def size(self) -> int: ...

    @property
    def data(self) -> bytes | None: ...

    def stream(self) -> AsyncGenerator[bytes, None]: ...


class Writer:
    """Writes objects of one service. What is larger than ``part_bytes`` goes in parts if it can."""

    def __init__(
        self, operator: opendal.AsyncOperator, service: str, part_bytes: int, retrying: Retrying
    ) -> None:
        can = operator.capability()
        self._operator = operator
        self._retrying = retrying
        self._patience = retrying.patience
        self._is_in_place = service in _IN_PLACE and can.rename
        self.part_bytes = max(part_bytes, can.write_multi_min_size or 0)
        self.in_parts = can.write_can_multi

    async def write(self, path: str, content: Content, options: WriteKwargs) -> None:
        """Write an object; it is there, whole, when this returns. Raises what Retrying.run does."""
        target = f"{path}{PART_MARK}{secrets.token_hex(8)}" if self._is_in_place else path
        try:
            if content.size <= self.part_bytes or not self.in_parts:
                await self._write_whole(target, content, options)
            else:
                await self._write_parts(target, content, options)
            if target != path:
                # Once only: after a rename whose answer was lost, a second one finds nothing.
                await self._retrying.run(
                    f"renaming {target}",
                    lambda: self._operator.rename(target, path),
                    attempts=1,
                    kind="write",
                )
        except Exception:
            if target != path:
                with suppress(TimeoutError, *OPENDAL_ERRORS):
                    async with asyncio.timeout(self._patience.stall_seconds):
                        await self._operator.delete(target)
            raise

    async def _write_whole(self, path: str, content: Content, options: WriteKwargs) -> None:
        data = content.data
        if data is None:
            async with aclosing(content.stream()) as pieces:
                data = b"".join([piece async for piece in pieces])
        _check_sent(path, len(data), content.size)
        whole = data
        await self._retrying.run(
            f"writing {path}",
            lambda: self._operator.write(path, whole, **options),
            seconds=self._patience.body_seconds(len(whole)),
            kind="write",
        )

    async def _write_parts(self, path: str, content: Content, options: WriteKwargs) -> None:
        """Write what becomes an object only when the last part is there. Parts are tried again."""
        patience, retrying = self._patience, self._retrying
        part_bytes = max(self.part_bytes, -(-content.size // CLOUD_PARTS_COUNT))
        part_seconds = patience.body_seconds(part_bytes)
        patient = self._operator.layer(
            opendal.layers.TimeoutLayer(timeout=patience.stall_seconds, io_timeout=part_seconds)
        ).layer(
            opendal.layers.RetryLayer(
                max_times=patience.attempts - 1,
                jitter=True,
                min_delay=patience.backoff_min_seconds,
                max_delay=patience.backoff_max_seconds,
            )
        )
        # The layers keep their own time; this is for what they miss.
        seconds = patience.attempts * (part_seconds + patience.backoff_max_seconds)
        doing = f"writing {path}"
        retrying.circuit.enter()
        chunked: WriteKwargs = {**options, "chunk": part_bytes}
        opening = functools.partial(patient.open, path, "wb", **chunked)
        file = await retrying.once(doing, opening, seconds=seconds, is_step=True, is_request=False)
        sent = parts = 0
        async with aclosing(_pieces(content)) as pieces:
            async for piece in pieces:
                write = functools.partial(file.write, piece)
                # One request for each part, and it is some piece of it that waits for its turn.
                begins = sent // part_bytes >= parts
                parts += begins
                await retrying.once(
                    doing,
                    write,
                    seconds=seconds,
                    is_step=True,
                    is_request=begins,
                    kind="write" if begins else "",
                )
                sent += len(piece)
        _check_sent(path, sent, content.size)
        await retrying.once(doing, file.close, seconds=seconds, is_step=True, kind="write")
        retrying.circuit.succeeded()


def whole_of(path: str) -> str | None:
    """The path of the object that a part file is written for, where writes are in place.

    None for what is no part file. A node that dies leaves them behind.
    """
    found = _PART.fullmatch(path)
    return found[1] if found else None


def _check_sent(path: str, sent: int, size: int) -> None:
    if sent != size:
        raise Corrupt(
            f"the content for {path} has {sent} bytes, and {size} were announced",
            hint="The copy on this node is damaged; it is healed from another.",
        )


async def _pieces(content: Content) -> AsyncGenerator[bytes, None]:
    if content.data is None:
        async with aclosing(content.stream()) as pieces:
            async for piece in pieces:
                yield piece
        return
    for at in range(0, content.size, PIECE_BYTES):
        yield content.data[at : at + PIECE_BYTES]
