"""Other dtfc nodes, Tierce or the program itself, over HTTP; and the list of them."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote

import aiohttp

from tierce.core.digest import Digest
from tierce.core.dtfc import NAME_CHARACTERS
from tierce.core.errors import BadRequest, NotFound, Unavailable
from tierce.core.limits import (
    CHUNK_BYTES,
    DTFC_ANSWER_SECONDS,
    DTFC_PEER_LIST_BYTES,
    DTFC_PEERS_COUNT,
    DTFC_STALL_SECONDS,
    MIN_PROGRESS_BYTES_PER_SECOND,
)
from tierce.core.wording import quoted
from tierce.node.dtfc_source import Head

log = logging.getLogger(__name__)

_FILE_NAME = re.compile(r'filename="((?:[^"\\]|\\.)*)"')
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})", re.ASCII)
_BEYOND = re.compile(r"bytes \*/([0-9]{1,18})", re.ASCII)
_URL = re.compile(r"https?://[!-~]+", re.ASCII | re.IGNORECASE)
_COMPLAINTS_COUNT = 10
_REDIRECTS = 3


class Peer:
    """One peer, by its base URL, as Source (dtfc_source.py)."""

    def __init__(self, url: str, client: "DtfcClient") -> None:
        self.url = url
        self.label = url
        self._client = client

    @asynccontextmanager
    async def open(self, digest: Digest, start: int = 0) -> AsyncIterator[Head]:
        """See Source. The peer is asked not to ask its own peers."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        path = f"{digest.raw.hex()}/nopeerload"
        async with self._client.request("GET", self.url, path, headers) as response:
            if response.status == 404:
                raise NotFound(f"{self.url} has no {digest}")
            begins, size = self._told(response, start)
            name = _file_name(response.headers.get("Content-Disposition", ""))
            pieces = self._client.pieces(self.url, response)
            try:
                yield Head(size, begins, name, pieces)
            finally:
                await pieces.aclose()

    def _told(self, response: aiohttp.ClientResponse, start: int) -> tuple[int, int | None]:
        """Where an answer begins, and the size of the whole. Raises Unavailable."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Unavailable(f"{self.url} answered with an encoding that was not asked for")
        told = response.headers.get("Content-Range", "")
        if response.status == 200:
            return 0, response.content_length
        if response.status == 206 and start:
            found = _RANGE.fullmatch(told)
            if found is None or int(found[1]) != start:
                raise Unavailable(f"{self.url} answered with another range than asked for")
            return start, int(found[2])
        if response.status == 416 and start:
            # There is nothing from there on: the end was reached, or is elsewhere.
            beyond = _BEYOND.fullmatch(told)
            return start, None if beyond is None else int(beyond[1])
        raise Unavailable(f"{self.url} answered with status {response.status}")

    async def delete(self, digest: Digest, ordered_at: int | None = None) -> bool:
        """Have the peer delete a file; False if it has none. Raises Unavailable.

        With ``ordered_at``, in nanoseconds since 1970, one that was put there later stays: also False.
        Only Tierce heeds that.
        """
        headers = {}
        if ordered_at is not None:
            headers["If-Unmodified-Since"] = formatdate(ordered_at // 1_000_000_000, usegmt=True)
        async with self._client.request("DELETE", self.url, digest.raw.hex(), headers) as response:
            if response.status == 412:
                log.info("%s keeps %s, which was put there after its deletion", self.url, digest)
                return False
            if response.status == 404:
                return False
            if response.status != 200:
                raise Unavailable(f"{self.url} answered with status {response.status}")
            return True


class DtfcClient:
    """A pool of connections to all peers. Start it before the first request; close it."""

    def __init__(
        self,
        *,
        answer_seconds: float = DTFC_ANSWER_SECONDS,
        stall_seconds: float = DTFC_STALL_SECONDS,
    ) -> None:
        self._answer_seconds = answer_seconds
        self._stall_seconds = stall_seconds
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Get ready; nothing is connected yet."""
        self._session = aiohttp.ClientSession(
            # A peer that sends plain requests to https elsewhere is told that this came that way.
            headers={"X-Forwarded-Proto": "https", "Accept-Encoding": "identity"},
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._answer_seconds, sock_read=self._stall_seconds
            ),
            auto_decompress=False,
            read_bufsize=CHUNK_BYTES,
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def request(
        self, method: str, base: str, path: str, headers: dict[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request, and read its answer inside the block. Raises Unavailable."""
        assert self._session is not None, "the client was started"
        url = f"{base.rstrip('/')}/{path}"
        with _translated(base):
            async with asyncio.timeout(self._answer_seconds):
                response = await self._session.request(
                    method, url, headers=headers, max_redirects=_REDIRECTS
                )
        try:
            yield response
        finally:
            response.close()

    async def pieces(
        self, base: str, response: aiohttp.ClientResponse
    ) -> AsyncGenerator[bytes, None]:
        """The body of an answer as it comes; none of one that has no file. Raises Unavailable.

        One that trickles counts as one that stalls. The time that the taker needs does not count.
        """
        now = asyncio.get_running_loop().time
        waited, came = 0.0, 0
        while response.status != 416:
            began = now()
            with _translated(base):
                piece = await response.content.readany()
            if not piece:
                return
            waited += now() - began
            came += len(piece)
            if waited >= self._stall_seconds:
                if came < waited * MIN_PROGRESS_BYTES_PER_SECOND:
                    raise Unavailable(f"{base} sent {came} bytes in {waited:.0f} s")
                waited, came = 0.0, 0
            yield piece


class PeerList:
    """The peers that are set, and those of a file with one URL a line, read again when it changes.

    ``me`` is this node's own URL: it may stand among them, and is left out.
    """

    def __init__(self, client: DtfcClient, urls: Sequence[str], path: Path | None, me: str) -> None:
        self._client = client
        self._urls = urls
        self._path = path
        self._me = me.rstrip("/")
        self._seen: tuple[int, int] | None = None
        self._complaint = ""
        self._peers: list[Peer] = []
        self._peers = self._made(urls)

    def peers(self) -> Sequence[Peer]:
        """All peers, in the order of the list. If the file can't be read, those known before."""
        if self._path is not None:
            try:
                stat = self._path.stat()
                if (stat.st_mtime_ns, stat.st_size) != self._seen:
                    self.refresh()
            except OSError as error:
                self._complain(f"the peer list {self._path} can't be read: {error.strerror}")
            except BadRequest as error:
                self._complain(f"the peer list {self._path} can't be used: {error.message}")
        return self._peers

    def refresh(self) -> None:
        """Read the file anew. What it names wrongly is left out, and said.

        Raises OSError, or BadRequest if it has too many; those known before stay then.
        """
        if self._path is None:
            return
        stat = self._path.stat()
        text = _text_of(self._path)
        # Also one that can't be used is not read again before it changes.
        self._seen = stat.st_mtime_ns, stat.st_size
        self._peers = self._made([*self._urls, *peers_in(text)])
        self._complaint = ""
        log.info("%d peers are listed", len(self._peers))

    def _complain(self, complaint: str) -> None:
        """Say once what is wrong with the file: it is looked at for each file to load."""
        if complaint != self._complaint:
            log.warning("%s", complaint)
        self._complaint = complaint

    def _made(self, urls: Sequence[str]) -> list[Peer]:
        known = {each.url: each for each in self._peers}
        wanted = dict.fromkeys(each.rstrip("/") for each in urls)
        wanted.pop(self._me, None)
        return [known.get(each) or Peer(each, self._client) for each in wanted]


def read_peers(path: Path) -> list[str]:
    """The URLs of a peer list. Raises OSError, and as :func:`peers_in` does."""
    return peers_in(_text_of(path))


def peers_in(text: str) -> list[str]:
    """The URLs of a peer list, one a line. Blank lines and those that begin with # are left out; so is
    what is no URL, with a word in the log. Raises BadRequest if there are too many.
    """
    found, wrong = [], []
    for line in map(str.strip, text.splitlines()):
        if _URL.fullmatch(line):
            found.append(line)
        elif line and not line.startswith("#"):
            wrong.append(line)
    for line in wrong[:_COMPLAINTS_COUNT]:
        log.warning("the peer list has a line that is no URL: %s", quoted(line))
    if len(wrong) > _COMPLAINTS_COUNT:
        log.warning("the peer list has %d lines that are no URLs", len(wrong))
    if len(found) > DTFC_PEERS_COUNT:
        raise BadRequest(
            f"the peer list has {len(found)} peers, and may have {DTFC_PEERS_COUNT}",
            hint="Peers are all asked for what is missing; make nodes members of one cluster.",
        )
    return found


def _text_of(path: Path) -> str:
    """The text of a peer list. Raises OSError, or BadRequest for a file that can't be one."""
    with path.open("rb") as file:
        content = file.read(DTFC_PEER_LIST_BYTES + 1)
    if len(content) > DTFC_PEER_LIST_BYTES:
        raise BadRequest(
            f"{path} has more than {DTFC_PEER_LIST_BYTES} bytes",
            hint="A peer list has the URL of a peer in each line; is it the right file?",
        )
    return content.decode("utf-8-sig", "replace")


def _file_name(disposition: str) -> str:
    found = _FILE_NAME.search(disposition)
    return "" if found is None else unquote(re.sub(r"\\(.)", r"\1", found[1]))[-NAME_CHARACTERS:]


@contextmanager
def _translated(base: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as problem:
        raise Unavailable(f"{base} did not answer, or go on, in time") from problem
    except (aiohttp.ClientError, OSError, ValueError) as problem:
        reason = str(problem) or type(problem).__name__
        raise Unavailable(f"{base} can't be asked: {reason}") from problem
