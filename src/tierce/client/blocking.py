"""The client for plain code without an event loop: the same methods, each waiting for its result."""

import asyncio
import builtins
import os
from collections.abc import AsyncGenerator, Generator
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from tierce.client.answers import Page, Stored
from tierce.client.client import Client
from tierce.client.object_answers import ChangesPage, FetchedObject, ObjectInfo, ObjectPage
from tierce.client.objects import PutOptions
from tierce.client.retrying import Retry
from tierce.core.digest import DEFAULT_ALGORITHM, Digest

T = TypeVar("T")


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

    def put_object(
        self, bucket: str, key: str, data: bytes, **options: Unpack[PutOptions]
    ) -> ObjectInfo:
        return self._runner.run(self._client.put_object(bucket, key, data, **options))

    def put_object_file(
        self,
        bucket: str,
        key: str,
        path: str | os.PathLike[str],
        **options: Unpack[PutOptions],
    ) -> ObjectInfo:
        return self._runner.run(self._client.put_object_file(bucket, key, path, **options))

    def head_object(self, bucket: str, key: str) -> ObjectInfo:
        return self._runner.run(self._client.head_object(bucket, key))

    def get_object(self, bucket: str, key: str) -> FetchedObject:
        return self._runner.run(self._client.get_object(bucket, key))

    def stream_object(self, bucket: str, key: str) -> Generator[bytes, None, None]:
        return self._each(self._client.stream_object(bucket, key))

    def delete_object(self, bucket: str, key: str, *, if_match: Digest | None = None) -> None:
        self._runner.run(self._client.delete_object(bucket, key, if_match=if_match))

    def list_objects(
        self, bucket: str, prefix: str = "", delimiter: str = "", after: str = ""
    ) -> Generator[ObjectPage, None, None]:
        return self._each(self._client.list_objects(bucket, prefix, delimiter, after))

    def list_buckets(self) -> builtins.list[str]:
        return self._runner.run(self._client.list_buckets())

    def changes(
        self, since: str = "", *, follow: bool = True
    ) -> Generator[ChangesPage, None, None]:
        return self._each(self._client.changes(since, follow=follow))

    def status(self) -> dict[str, Any]:
        return self._runner.run(self._client.status())

    def cluster(self) -> dict[str, Any]:
        return self._runner.run(self._client.cluster())

    def drain(self, node_id: str, cancel: bool = False) -> None:
        self._runner.run(self._client.drain(node_id, cancel))

    def forget(self, node_id: str) -> None:
        self._runner.run(self._client.forget(node_id))

    def compare_store(self) -> int:
        return self._runner.run(self._client.compare_store())

    def _each(self, source: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """What an asynchronous generator gives. Close it if it is left early."""
        try:
            while True:
                try:
                    yield self._runner.run(_next(source))
                except StopAsyncIteration:
                    return
        finally:
            self._runner.run(source.aclose())


async def _next(source: AsyncGenerator[T, None]) -> T:
    return await anext(source)
