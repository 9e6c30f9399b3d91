"""Errors as the door words them, and what a client sees of our own mistakes: nothing."""

import json
import logging

import pytest
from tests.doors.native.node import Node, problem

from tierce.blobs.file_reading import FileBlob
from tierce.core import errors
from tierce.core.digest import Digest
from tierce.core.errors import TierceError
from tierce.doors.native.errors import NAMES, STATUS, render_error
from tierce.doors.shared.door import status_of
from tierce.doors.shared.ranges import UnsatisfiableRange
from tierce.doors.shared.router import MethodNotAllowed
from tierce.service.blobs import Blobs

SECRET = "the password is tuna"


def made(kind: type[TierceError]) -> TierceError:
    if kind is UnsatisfiableRange:
        return UnsatisfiableRange(7)
    if kind is MethodNotAllowed:
        return MethodNotAllowed("PATCH", "GET, HEAD")
    return kind("what happened", hint="What to do.")


@pytest.mark.parametrize("kind", STATUS, ids=NAMES.get)
def test_each_error_is_a_problem_with_a_stable_type(kind: type[TierceError]) -> None:
    error = made(kind)
    answer = render_error(error)
    assert answer.status == STATUS[kind]
    assert json.loads(answer.body) == {
        "type": f"https://tierce.dev/problems/{NAMES[kind]}",
        "title": NAMES[kind].replace("-", " ").capitalize(),
        "status": STATUS[kind],
        "detail": error.message,
        "hint": error.hint,
    }


def test_the_published_names_never_change() -> None:
    """Clients go by these. A new one may be added; none may go or change its status."""
    assert {NAMES[kind]: status for kind, status in STATUS.items()} == {
        "not-found": 404, "bad-request": 400, "too-large": 413, "digest-mismatch": 422,
        "too-slow": 408, "refused": 403, "unauthenticated": 401, "forbidden": 403, "conflict": 409,
        "unavailable": 503, "read-only": 503, "corrupt": 500, "full": 507, "no-such-path": 404,
        "method-not-allowed": 405, "headers-too-large": 431, "precondition-failed": 412,
        "unsatisfiable-range": 416, "unsupported-encoding": 415, "too-many-requests": 429,
    }  # fmt: skip


def test_an_error_that_is_in_no_table_gets_the_status_of_its_nearest_kin() -> None:
    class Novel(errors.Full):
        pass

    assert status_of(Novel("new"), STATUS) == 507
    assert json.loads(render_error(Novel("new")).body)["type"].endswith("/full")


def test_words_that_are_no_valid_text_can_be_sent() -> None:
    body = json.loads(render_error(errors.NotFound("\udcff\n\0'\"")).body)
    assert body["detail"] == "\udcff\n\0'\""


def test_a_mistake_of_ours_is_a_500_without_internals_and_logged(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(self: Blobs, digest: Digest) -> int:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(Blobs, "open", failing)
    reply = node.get(Digest.of(b"any"))
    assert (reply.status, problem(reply)) == (500, "internal")
    assert SECRET not in reply.body.decode()
    assert "RuntimeError" not in reply.body.decode()
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert SECRET in str(record.exc_info[1])
    monkeypatch.undo()
    assert node.call("GET", "/v1/health/live").status == 200


def test_a_mistake_of_ours_while_a_blob_is_sent_can_not_pass_for_its_bytes(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The head is sent by then: a 500 that followed would be read as part of the blob."""
    data = b"\0" * (3 << 20)
    digest = node.put(data)
    read = FileBlob._read_piece

    def failing(self: FileBlob, start: int, *more: int) -> bytes:
        if start:
            raise RuntimeError(SECRET)
        return read(self, start, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(FileBlob, "_read_piece", failing)
    reply = node.get(digest)
    assert reply.status == 200
    assert not reply.complete
    assert reply.body.strip(b"\0") == b""
    assert SECRET in caplog.text


def test_a_disk_error_while_an_upload_comes_is_told_and_leaves_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(fd: int, data: memoryview) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tierce.blobs.spool.write_all", failing)
    data = b"no room for this" * 100_000
    reply = node.call("POST", "/v1/blobs", data)
    assert (reply.status, problem(reply)) == (507, "full")
    monkeypatch.undo()
    assert not node.has(Digest.of(data))
    assert not any((node.data / "tmp").iterdir())
