"""The client for plain code without an event loop: the same methods, each waiting for its result."""

import asyncio
import os
from types import TracebackType
from typing import Any, Self

from tierce.client.answers import Page, Stored
from tierce.client.client import Client
from tierce.client.retrying import Retry
from tierce.core.digest import DEFAULT_ALGORITHM, Digest


class BlockingClient:
    """Use it in ``with``, from one thread. Arguments, results and errors are those of ``Client``."""

    def __init__(self, url: str, token: str | None = None, *, retry: Retry | None = None) -> None:
        self._client = Client(url, token, retry=retry)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.run(self._client.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self._client.__aexit__(kind, error, trace))
        self._runner.close()

    def put_bytes(self, data: bytes, algorithm: str = DEFAULT_ALGORITHM) -> Stored:
        return self._runner.run(self._client.put_bytes(data, algorithm))

    def put_file(self, path: str | os.PathLike[str], algorithm: str = DEFAULT_ALGORITHM) -> Stored:
        return self._runner.run(self._client.put_file(path, algorithm))

    def get_bytes(self, digest: Digest) -> bytes:
        return self._runner.run(self._client.get_bytes(digest))

    def get_file(self, digest: Digest, path: str | os.PathLike[str]) -> int:
        return self._runner.run(self._client.get_file(digest, path))

    def stat(self, digest: Digest) -> int:
        return self._runner.run(self._client.stat(digest))

    def list(self, after: Digest | None = None, limit: int | None = None) -> Page:
        return self._runner.run(self._client.list(after, limit))

    def delete(self, digest: Digest) -> None:
        self._runner.run(self._client.delete(digest))

    def status(self) -> dict[str, Any]:
        return self._runner.run(self._client.status())

    def cluster(self) -> dict[str, Any]:
        return self._runner.run(self._client.cluster())

    def drain(self, node_id: str, cancel: bool = False) -> None:
        self._runner.run(self._client.drain(node_id, cancel))

    def forget(self, node_id: str) -> None:
        self._runner.run(self._client.forget(node_id))
