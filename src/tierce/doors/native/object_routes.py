"""The routes of named objects: put, read, delete and list them, and follow their changes."""

import asyncio

from aiohttp import web

from tierce.core.errors import BadRequest
from tierce.core.limits import CHANGES_NOTICE_SECONDS, LIST_LIMIT_DEFAULT, OBJECTS_LIMIT_MAX
from tierce.core.rights import Right
from tierce.doors.native import object_render as render
from tierce.doors.native.requests import (
    NAME,
    announced_digests,
    content_type_in,
    limit_in,
    metadata_in,
    object_name,
    part_of_key,
    texts_in_query,
    unmodified,
    wait_in,
    write_check,
)
from tierce.doors.shared.answers import Answer
from tierce.doors.shared.bodies import announced_bytes, body_of, refuse_encoded
from tierce.doors.shared.connection import connection_of
from tierce.doors.shared.router import Route
from tierce.doors.shared.sending import head_answer, send_blob
from tierce.names.record import Record
from tierce.service.access import Access
from tierce.service.objects import ChangesPage, Objects

OBJECT = "/v1/buckets/{bucket}/objects/{key*}"
OBJECTS = "/v1/buckets/{bucket}/objects"


class ObjectRoutes:
    """Handlers over the service. Each checks the caller's right before anything else.

    The arguments ``bucket`` and ``key`` that a route gives are not used where there is a key: the
    address is read as it was sent (requests.object_name).
    """

    def __init__(self, objects: Objects, access: Access) -> None:
        self._objects = objects
        self._access = access

    def routes(self) -> list[Route]:
        return [
            Route("GET", OBJECT, self.get_object),
            Route("HEAD", OBJECT, self.head_object),
            Route("PUT", OBJECT, self.put_object),
            Route("DELETE", OBJECT, self.delete_object),
            Route("GET", OBJECTS, self.list_objects),
            Route("GET", "/v1/buckets", self.list_buckets),
            Route("GET", "/v1/changes", self.get_changes),
        ]

    async def get_object(
        self, request: web.BaseRequest, bucket: str, key: str
    ) -> web.StreamResponse:
        self._allow(request, Right.READ)
        record = self._objects.find(*object_name(request))
        how = render.presented(record)
        # Weighed before the content is opened, as it may have to be fetched from afar.
        unchanged = unmodified(request, record)
        if unchanged is not None:
            unchanged.add_block(how.block)
            return unchanged
        content = await self._objects.open(record)
        return await send_blob(request, content, how, NAME, check=_weighed)

    async def head_object(self, request: web.BaseRequest, bucket: str, key: str) -> Answer:
        self._allow(request, Right.READ)
        record = self._objects.find(*object_name(request))
        how = render.presented(record)
        return head_answer(
            request, record.size, how, check=lambda request, _: unmodified(request, record)
        )

    async def put_object(self, request: web.BaseRequest, bucket: str, key: str) -> Answer:
        self._allow(request, Right.WRITE)
        named_bucket, named_key = object_name(request)
        if "Content-Range" in request.headers:
            raise BadRequest("a part of an object can't be put", hint="Send the whole at once.")
        refuse_encoded(request)
        draft = Record(
            bucket=named_bucket,
            key=named_key,
            content_type=content_type_in(request),
            metadata=metadata_in(request),
        )
        condition = write_check(request)
        created = True

        def check(record: Record | None) -> None:
            nonlocal created
            # The last call is the one that sees what the write replaces.
            created = record is None or record.deleted
            if condition is not None:
                condition(record)

        record = await self._objects.put(
            draft,
            body_of(request, NAME),
            expected=announced_digests(request),
            announced_bytes=announced_bytes(request),
            check=check,
            early=condition is not None,
        )
        return render.stored(record, created=created)

    async def delete_object(self, request: web.BaseRequest, bucket: str, key: str) -> Answer:
        self._allow(request, Right.WRITE)
        await self._objects.delete(*object_name(request), check=write_check(request))
        return Answer(204)

    async def list_objects(self, request: web.BaseRequest, bucket: str) -> Answer:
        self._allow(request, Right.READ)
        query = texts_in_query(request)
        prefix, delimiter, after = (
            part_of_key(query, name) for name in ("prefix", "delimiter", "after")
        )
        page = await self._objects.list_page(
            bucket,
            prefix=prefix,
            delimiter=delimiter,
            after=after,
            limit=limit_in(query.get("limit"), LIST_LIMIT_DEFAULT, OBJECTS_LIMIT_MAX),
        )
        return render.listing(bucket, prefix, delimiter, page)

    async def list_buckets(self, request: web.BaseRequest) -> Answer:
        self._allow(request, Right.READ)
        return render.buckets(await self._objects.buckets())

    async def get_changes(self, request: web.BaseRequest) -> Answer:
        self._allow(request, Right.READ)
        query = texts_in_query(request)
        page = await self._changes(
            request,
            query.get("since", ""),
            limit_in(query.get("limit"), LIST_LIMIT_DEFAULT, OBJECTS_LIMIT_MAX),
            wait_in(query.get("wait")),
        )
        return render.changes(page)

    async def _changes(
        self, request: web.BaseRequest, since: str, limit: int, wait_seconds: float
    ) -> ChangesPage:
        """Wait in short steps: nobody else tells a handler that its client is gone."""
        connection = connection_of(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        while True:
            step = min(CHANGES_NOTICE_SECONDS, max(0.0, deadline - loop.time()))
            page = await self._objects.changes(since, limit, step)
            if page.changes or connection.ending or loop.time() >= deadline:
                return page
            if connection.transport is None:
                raise ConnectionResetError("the client is gone")

    def _allow(self, request: web.BaseRequest, right: Right) -> None:
        self._access.check(request.headers.get("Authorization"), right)


def _weighed(request: web.BaseRequest, etag: str) -> None:
    """The conditions were weighed already, against the record."""
