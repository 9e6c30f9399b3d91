"""User metadata as tags of an S3 object, beside its metadata.

OpenDAL has no word for tags, so these are requests of our own, signed by botocore (the extra
``tags``). What fits goes: at most 10 tags, in the order of the metadata; the rest is in the metadata
anyway. A server that does not know tags may take such a PUT for one of the object, and so overwrite
it. So the first request for tags is a GET, and only a server that answers with a set of tags, and not
as for an object, is ever sent a PUT.
"""

import asyncio
import base64
import hashlib
import importlib
import importlib.util
import logging
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import escape

import aiohttp
from yarl import URL

from tierce.cloud.failures import Passing

UPSTREAM_TAGS_COUNT = 10
UPSTREAM_TAG_KEY_CHARACTERS = 128
UPSTREAM_TAG_VALUE_CHARACTERS = 256
UPSTREAM_TAGS_ANSWER_BYTES = 64 * 1024

_MARKS = frozenset("+-=._:/@")
_LATER = "Look at the upstream's status; it is asked again later."

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Where a bucket is. ``profile``: of which the credentials are; empty for the usual one."""

    endpoint: str
    bucket: str
    region: str
    prefix: str = ""
    is_virtual_host: bool = False
    profile: str = ""

    def url(self, key: str) -> str:
        """The URL of an object's tags, escaped as S3 wants it."""
        path = quote("/".join(filter(None, (self.prefix.strip("/"), key))), safe="/-_.~")
        parts = urlsplit(self.endpoint)
        if self.is_virtual_host:
            return f"{parts.scheme}://{self.bucket}.{parts.netloc}/{path}?tagging"
        return (
            f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/{self.bucket}/{path}?tagging"
        )


def tags_of(metadata: Mapping[str, str]) -> dict[str, str]:
    """The user metadata that can be tags: the first ten that S3's rules allow."""
    fit = [
        (name, value)
        for name, value in metadata.items()
        if 0 < len(name) <= UPSTREAM_TAG_KEY_CHARACTERS
        and len(value) <= UPSTREAM_TAG_VALUE_CHARACTERS
        and not name.lower().startswith("aws:")
        and all(map(_is_allowed, name + value))
    ]
    return dict(fit[:UPSTREAM_TAGS_COUNT])


def document(tags: Mapping[str, str]) -> bytes:
    """The body of a request that sets tags."""
    inner = "".join(
        f"<Tag><Key>{escape(name)}</Key><Value>{escape(value)}</Value></Tag>"
        for name, value in tags.items()
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<Tagging xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<TagSet>{inner}</TagSet></Tagging>"
    ).encode()


def _is_allowed(character: str) -> bool:
    return character in _MARKS or unicodedata.category(character)[0] in "LNZ"


class CantSign(Passing):
    """There are no credentials to be had for a request of our own."""


class Tagger:
    """Sets tags of objects in one bucket. ``state`` is for the status: unknown, on, or why not."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._session: aiohttp.ClientSession | None = None
        self._credentials: Any = None
        self._lock = asyncio.Lock()
        self.state = "unknown"

    async def put(self, key: str, tags: Mapping[str, str]) -> None:
        """Set an object's tags, once; does nothing for a server without tags.

        Raises Passing for what may work later.
        """
        async with self._lock:  # the first to come asks, the others wait for what it finds
            if self.state == "unknown":
                try:
                    await self._find_out(key)
                except CantSign as error:
                    # OpenDAL has credentials, so all else works: that is not to fail for tags.
                    self._switch_off(error.message)
        if self.state != "on":
            return
        status, _, _ = await self._send("PUT", key, document(tags))
        if status in (401, 403):
            self._switch_off("the credentials may not set tags (s3:PutObjectTagging)")
        elif status // 100 != 2 and status != 404:  # 404: deleted meanwhile
            raise Passing(
                f"the upstream failed while tags were set: HTTP status {status}", hint=_LATER
            )

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _find_out(self, key: str) -> None:
        status, headers, body = await self._send("GET", key, b"")
        if status == 404:
            return  # the object is gone already; the next one tells
        if status in (429, 502, 503, 504):
            raise Passing(
                f"the upstream failed while asked for tags: HTTP status {status}", hint=_LATER
            )
        is_object = any(name in headers for name in ("ETag", "Last-Modified", "Accept-Ranges"))
        if status in (401, 403):
            self._switch_off("the credentials may not read tags (s3:GetObjectTagging)")
        elif status == 200 and not is_object and b"<Tagging" in body:
            self.state = "on"
        else:
            self._switch_off(f"the server knows no tags (HTTP status {status})")

    def _switch_off(self, why: str) -> None:
        self.state = f"off: {why}"
        log.warning("No tags are set in the upstream: %s. The metadata is whole without them.", why)

    async def _send(
        self, method: str, key: str, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        url = self._place.url(key)
        headers = await asyncio.to_thread(self._signed, method, url, body)
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=True)
        try:
            async with self._session.request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=body or None,
                allow_redirects=False,
                skip_auto_headers=("Content-Type",),
            ) as answer:
                text = await answer.content.read(UPSTREAM_TAGS_ANSWER_BYTES)
                return answer.status, answer.headers, text
        except aiohttp.ClientError as error:
            reason = str(error)[:200] or type(error).__name__
            raise Passing(
                f"the upstream failed while tags were set: {reason}", hint=_LATER
            ) from None

    def _signed(self, method: str, url: str, body: bytes) -> dict[str, str]:
        """The headers of a signed request. Blocks: credentials may come from files or a server."""
        failures = importlib.import_module("botocore.exceptions")
        try:
            return self._signed_by_botocore(method, url, body)
        except failures.BotoCoreError as error:
            raise CantSign(
                f"botocore can't sign a request for tags: {str(error)[:200]}",
                hint="Check the profile or role that the credentials come from.",
            ) from None

    def _signed_by_botocore(self, method: str, url: str, body: bytes) -> dict[str, str]:
        if self._credentials is None:
            session = importlib.import_module("botocore.session")
            found = session.Session(profile=self._place.profile or None).get_credentials()
            if found is None:
                raise CantSign(
                    "botocore finds no credentials to set tags with",
                    hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role.",
                )
            self._credentials = found
        auth = importlib.import_module("botocore.auth")
        requests = importlib.import_module("botocore.awsrequest")
        headers = {}
        if body:
            digest = hashlib.md5(body, usedforsecurity=False).digest()
            headers["Content-MD5"] = base64.b64encode(digest).decode()
        request = requests.AWSRequest(method, url, headers=headers, data=body)
        frozen = self._credentials.get_frozen_credentials()
        auth.S3SigV4Auth(frozen, "s3", self._place.region).add_auth(request)
        return dict(request.headers)


def is_installed() -> bool:
    """Whether there is a botocore to sign with."""
    return importlib.util.find_spec("botocore") is not None
