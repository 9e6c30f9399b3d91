"""A stand-in for Dropbox's servers, as far as OpenDAL asks them: for the tests of a store there.

OpenDAL knows one address of Dropbox only. So this is a proxy for HTTPS which answers in the place of
whom it is asked to connect to, with a certificate of an authority of its own. A process uses it whose
environment has :attr:`DropboxServer.environment`; OpenDAL reads that once, when a process asks for the
first time. Paths, answers and errors are as in Dropbox's documentation of its HTTP API.
"""

import contextlib
import hashlib
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import trustme

APP_KEY = "app-key"
APP_SECRET = "app-secret-that-is-nobodys"  # noqa: S105 - of a server on loopback
REFRESH_TOKEN = "refresh-token-of-a-test"  # noqa: S105
ACCESS_TOKEN = "access-token-of-a-test"  # noqa: S105
_API, _CONTENT = "api.dropboxapi.com", "content.dropboxapi.com"
_PAGE_ENTRIES = 100
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Answer(NamedTuple):
    """``content`` instead of JSON for a download."""

    status: int
    told: dict[str, Any]
    content: bytes | None = None


class DropboxServer:
    """An account with files in memory. ``is_revoked``: nobody's token is taken any more."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.is_revoked = False
        self.is_full = False
        self.environment: dict[str, str] = {}
        self._lock = threading.Lock()
        self._cursors: dict[str, list[dict[str, Any]]] = {}
        self._calls: dict[str, Callable[[dict[str, Any], bytes, str], Answer]] = {
            "/2/files/upload": self._upload,
            "/2/files/download": self._download,
            "/2/files/get_metadata": self._get_metadata,
            "/2/files/list_folder": self._list_folder,
            "/2/files/list_folder/continue": self._continue,
            "/2/files/delete_v2": self._delete,
            "/2/files/copy_v2": self._copy,
            "/2/files/move_v2": self._move,
            "/2/files/create_folder_v2": self._create_folder,
        }

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Answer one request."""
        with self._lock:
            self.requests.append(path)
            if path == "/oauth2/token":
                return self._token(body)
            if self.is_revoked or headers.get("authorization") != f"Bearer {ACCESS_TOKEN}":
                return _error(401, "invalid_access_token")
            call = self._calls.get(path)
            if call is None:
                return Answer(400, {"error": f"unknown API function {path}"})
            is_content = "dropbox-api-arg" in headers
            argument = json.loads(headers["dropbox-api-arg"] if is_content else body)
            return call(argument, body, headers.get("range", ""))

    def _token(self, body: bytes) -> Answer:
        expected = (
            f"grant_type=refresh_token&refresh_token={REFRESH_TOKEN}&client_id={APP_KEY}"
            f"&client_secret={APP_SECRET}"
        )
        if self.is_revoked or body.decode() != expected:
            told = {"error": "invalid_grant", "error_description": "refresh token is revoked"}
            return Answer(400, told)
        told = {"access_token": ACCESS_TOKEN, "token_type": "bearer"}
        return Answer(200, {**told, "expires_in": 14400})

    def _upload(self, argument: dict[str, Any], body: bytes, _: str) -> Answer:
        if self.is_full:
            return _error(409, "path", "insufficient_space")
        assert argument["mode"] == "overwrite"
        self.files[_key(argument["path"])] = body
        return Answer(200, self._metadata(argument["path"]))

    def _download(self, argument: dict[str, Any], _: bytes, wanted: str) -> Answer:
        content = self.files.get(_key(argument["path"]))
        if content is None:
            return _error(409, "path", "not_found")
        metadata = self._metadata(argument["path"])
        if not (found := _RANGE.fullmatch(wanted)):
            return Answer(200, metadata, content)
        start = int(found[1])
        if start >= len(content):
            return Answer(416, {}, b"")
        return Answer(206, metadata, content[start : int(found[2] or len(content)) + 1])

    def _get_metadata(self, argument: dict[str, Any], _: bytes, __: str) -> Answer:
        key = _key(argument["path"])
        if key in self.files:
            return Answer(200, self._metadata(key))
        if any(each.startswith(f"{key}/") for each in self.files):
            return Answer(200, _folder(key))
        return _error(409, "path", "not_found")

    def _list_folder(self, argument: dict[str, Any], _: bytes, __: str) -> Answer:
        assert not argument["recursive"]
        below = _key(argument["path"]) + "/"
        names = {
            each.removeprefix(below).partition("/") for each in self.files if each.startswith(below)
        }
        if not names:
            return _error(409, "path", "not_found")
        folders = sorted({name for name, slash, _ in names if slash})
        entries = [_folder(below + name) for name in folders]
        entries += [self._metadata(below + name) for name, slash, _ in sorted(names) if not slash]
        return self._page(entries)

    def _continue(self, argument: dict[str, Any], _: bytes, __: str) -> Answer:
        return self._page(self._cursors.pop(argument["cursor"]))

    def _page(self, entries: list[dict[str, Any]]) -> Answer:
        cursor = f"cursor-{len(self.requests)}"
        self._cursors[cursor] = entries[_PAGE_ENTRIES:]
        has_more = len(entries) > _PAGE_ENTRIES
        told = {"entries": entries[:_PAGE_ENTRIES], "cursor": cursor, "has_more": has_more}
        return Answer(200, told)

    def _delete(self, argument: dict[str, Any], _: bytes, __: str) -> Answer:
        key = _key(argument["path"])
        gone = [each for each in self.files if each == key or each.startswith(f"{key}/")]
        if not gone:
            return _error(409, "path_lookup", "not_found")
        metadata = self._metadata(gone[0])
        for each in gone:
            del self.files[each]
        return Answer(200, {"metadata": metadata})

    def _copy(self, argument: dict[str, Any], _: bytes, __: str) -> Answer:
        source, target = _key(argument["from_path"]), _key(argument["to_path"])
        if source not in self.files:
            return _error(409, "from_lookup", "not_found")
        if target in self.files:
            return _error(409, "to", "conflict")
        self.files[target] = self.files[source]
        return Answer(200, {"metadata": self._metadata(target)})

    def _move(self, argument: dict[str, Any], body: bytes, wanted: str) -> Answer:
        answer = self._copy(argument, body, wanted)
        if answer.status == 200:
            del self.files[_key(argument["from_path"])]
        return answer

    def _create_folder(self, argument: dict[str, Any], _: bytes, __: str) -> Answer:
        return Answer(200, {"metadata": _folder(_key(argument["path"]))})

    def _metadata(self, path: str) -> dict[str, Any]:
        content = self.files[_key(path)]
        digest = hashlib.sha256(content).hexdigest()
        return {
            ".tag": "file",
            "name": path.rpartition("/")[2],
            "path_lower": _key(path),
            "path_display": path,
            "id": f"id:{digest[:20]}",
            "client_modified": "2024-01-01T00:00:00Z",
            "server_modified": "2024-01-01T00:00:00Z",
            "rev": digest[:20],
            "size": len(content),
            "is_downloadable": True,
            "content_hash": digest,
        }


@contextlib.contextmanager
def serve_dropbox(directory: Path) -> Iterator[DropboxServer]:
    """Stand in for Dropbox inside the block. The authority's certificate is put into ``directory``."""
    account = DropboxServer()
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(_API, _CONTENT).configure_cert(context)
    certificate = directory / "authority.pem"
    authority.cert_pem.write_to_path(str(certificate))

    class Handler(_Handler):
        """Answers for this account."""

    Handler.account, Handler.context = account, context
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    account.environment = {
        "HTTPS_PROXY": f"http://127.0.0.1:{server.server_port}",
        "SSL_CERT_FILE": str(certificate),
        "OPENDAL_DROPBOX_CLIENT_ID": APP_KEY,
        "OPENDAL_DROPBOX_CLIENT_SECRET": APP_SECRET,
        "OPENDAL_DROPBOX_REFRESH_TOKEN": REFRESH_TOKEN,
    }
    try:
        yield account
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    account: DropboxServer
    context: ssl.SSLContext

    def do_CONNECT(self) -> None:
        """Become the server that is asked for."""
        self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        self.connection = self.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb")  # flushed after each answer
        self.close_connection = False

    def do_POST(self) -> None:
        """Answer a request."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.account.answer(self.path, headers, body)
        told = json.dumps(answer.told)
        content = told.encode() if answer.content is None else answer.content
        self.send_response(answer.status)
        if answer.content is not None:
            self.send_header("Dropbox-API-Result", told)
        type_ = "application/json" if answer.content is None else "application/octet-stream"
        self.send_header("Content-Type", type_)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def finish(self) -> None:
        """Close what was made of the connection, too."""
        super().finish()
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _key(path: str) -> str:
    """Dropbox does not tell upper case from lower."""
    return path.lower()


def _folder(path: str) -> dict[str, Any]:
    name = path.rpartition("/")[2]
    return {".tag": "folder", "name": name, "path_lower": path, "path_display": path, "id": "id:f"}


def _error(status: int, tag: str, reason: str = "") -> Answer:
    error: dict[str, Any] = {".tag": tag}
    if reason:
        error[tag] = {".tag": reason}
    return Answer(status, {"error_summary": f"{tag}/{reason}/..", "error": error})
