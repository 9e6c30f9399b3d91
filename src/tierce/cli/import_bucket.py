"""The bucket of a Cask node with the S3 backend, as a source: its keys are Cask's own, ``sha1:HEX``.

It is read by OpenDAL, with the URLs that an upstream has, from services of other kinds too.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager

import opendal

from tierce.client.importing.files import check_directory
from tierce.client.importing.items import Item, Met, Passed, SourceTrouble
from tierce.client.uploads import SMALL_FILE_BYTES
from tierce.cloud.address import Address, parse_address
from tierce.cloud.failures import OPENDAL_ERRORS, translate
from tierce.cloud.opening import open_operator
from tierce.cloud.retrying import Patience, Retrying
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, NotFound, Refused, TierceError, Unavailable
from tierce.upstream.reading import Content, pieces_of

_CASK_KEYS = {
    "access_key_id": "CASK_S3_ACCESS_KEY",
    "secret_access_key": "CASK_S3_SECRET_KEY",
}


class CaskBucket:
    """See Source."""

    def __init__(
        self, url: str, environ: Mapping[str, str], patience: Patience | None = None
    ) -> None:
        """Raises BadRequest for a URL that can't be used."""
        self._patience = patience or Patience()
        with _reworded():
            address = parse_address(url, environ)
            if address.service == "fs":  # else one that is not there would look empty
                check_directory(address.options["root"])
            self._operator = _operator(address, environ)
        self._has_tags = self._operator.capability().read_with_if_match
        self._retrying = Retrying(self._patience)
        self.label = f"the Cask files in {address.shown}"

    async def items(self) -> AsyncGenerator[Met, None]:
        """See Source. In the order of the service; of S3, that of the keys."""
        patience = self._patience
        patient = self._operator.layer(
            opendal.layers.TimeoutLayer(
                timeout=patience.stall_seconds, io_timeout=patience.stall_seconds
            )
        ).layer(opendal.layers.RetryLayer(max_times=patience.attempts - 1, jitter=True))
        with _reworded():
            try:
                async for entry in await patient.list("", recursive=True):
                    if not entry.path.endswith("/"):
                        yield _met(entry.path)
            except OPENDAL_ERRORS as error:
                raise translate(error, "its keys were listed") from None

    @asynccontextmanager
    async def open(self, item: Item) -> AsyncIterator["BucketContent"]:
        """See Source."""
        with _reworded(), _troubled():
            told = await self._stat(item.place)
            etag = told.etag or ""
            usable = self._has_tags and not etag.startswith("W/")
            content = BucketContent(
                self, Content(item.place, told.content_length, etag if usable else ""), etag
            )
            if content.size <= SMALL_FILE_BYTES:
                content.data = b"".join([piece async for piece in content.pieces()])
        yield content

    async def pieces(self, content: Content) -> AsyncGenerator[bytes, None]:
        """The bytes of an open item. Raises SourceTrouble."""
        with _reworded(), _troubled():
            async with aclosing(pieces_of(self._operator, content, self._retrying)) as pieces:
                async for piece in pieces:
                    yield piece

    async def has_changed(self, key: str, size: int, etag: str) -> bool:
        """Whether a key has another content than it had. Raises SourceTrouble."""
        with _reworded(), _troubled():
            told = await self._stat(key)
        return (told.content_length, told.etag or "") != (size, etag)

    async def _stat(self, key: str) -> opendal.types.Metadata:
        return await self._retrying.run(f"looking at {key}", lambda: self._operator.stat(key))


class BucketContent:
    """See Content."""

    def __init__(self, bucket: CaskBucket, content: Content, etag: str) -> None:
        self._bucket = bucket
        self._content = content
        self._etag = etag
        self.size = content.size
        self.data: bytes | None = None

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """See Content."""
        return self._bucket.pieces(self._content)

    async def has_changed(self) -> bool:
        """See Content."""
        return await self._bucket.has_changed(self._content.path, self.size, self._etag)


def _operator(address: Address, environ: Mapping[str, str]) -> opendal.AsyncOperator:
    """OpenDAL finds S3's usual credentials by itself; those of a Cask node count where none are set."""
    options = dict(address.options)
    has_own = environ.get("AWS_ACCESS_KEY_ID") or environ.get("AWS_PROFILE")
    if address.service == "s3" and not has_own and all(map(environ.get, _CASK_KEYS.values())):
        options |= {option: environ[name] for option, name in _CASK_KEYS.items()}
    hint = "Write it as in s3://BUCKET?region=eu-west-1; see docs/importing.md."
    return open_operator(address._replace(options=options), "bucket", hint)


def _met(key: str) -> Met:
    try:
        return Item(key, _digest(key))
    except BadRequest:
        return Passed(key, "it is none of the store's files")


def _digest(key: str) -> Digest:
    digest = Digest.parse(key)
    if digest.algorithm != "sha1":
        raise BadRequest("Cask has SHA-1 only")
    return digest


@contextmanager
def _reworded() -> Iterator[None]:
    """What speaks of an upstream elsewhere is the bucket to be read here."""
    try:
        yield
    except TierceError as error:
        error.message = error.message.replace("the upstream", "the bucket")
        error.hint = error.hint.replace("the upstream", "the bucket")
        if isinstance(error, Refused):
            error.hint = "Give credentials that may list the bucket and read what is in it."
        raise


@contextmanager
def _troubled() -> Iterator[None]:
    """What keeps one key from being read, as the trouble of that one."""
    try:
        yield
    except NotFound as error:
        raise SourceTrouble("it is gone: something removed it meanwhile") from error
    except SourceTrouble:
        raise
    except TierceError as error:
        is_remote = isinstance(error, (Unavailable, Refused))
        raise SourceTrouble(error.message, hint=error.hint, is_remote=is_remote) from error
