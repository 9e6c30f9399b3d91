"""What a server's answers mean."""

import json

import pytest

from tierce.client import answers
from tierce.client.retrying import TryAgain
from tierce.core import errors
from tierce.core.digest import Digest


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (307, errors.BadRequest),
        (400, errors.BadRequest),
        (401, errors.Unauthenticated),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (405, errors.BadRequest),
        (408, errors.TooSlow),
        (409, errors.Conflict),
        (412, errors.Conflict),
        (413, errors.TooLarge),
        (416, errors.BadRequest),
        (418, errors.BadRequest),
        (422, errors.DigestMismatch),
        (429, TryAgain),
        (500, errors.Unavailable),
        (501, errors.Unavailable),
        (502, TryAgain),
        (503, TryAgain),
        (507, errors.Full),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>", b'{"detail": 5}', b'{"type": "about:blank"}'])
def test_each_status_has_its_error(
    status: int, kind: type[errors.TierceError], body: bytes
) -> None:
    error = answers.error("the thing", status, {}, body)
    assert type(error) is kind
    assert error.message


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [(500, "corrupt", errors.Corrupt), (503, "read-only", errors.ReadOnly)],
)
def test_the_name_of_a_problem_can_say_more_than_its_status(
    status: int, name: str, kind: type[errors.TierceError]
) -> None:
    body = json.dumps({"type": f"https://tierce.dev/problems/{name}"}).encode()
    assert type(answers.error("x", status, {}, body)) is kind


def test_detail_and_hint_are_passed_on() -> None:
    error = answers.error("x", 404, {}, b'{"title": "T", "detail": "D", "hint": "H"}')
    assert (error.message, error.hint) == ("D", "H")


def test_what_a_sos_door_says_is_passed_on() -> None:
    body = b'{"error":"too many headers","status":"FAILED"}'
    assert answers.error("/blob/a", 413, {}, body).message == "/blob/a: too many headers"


def test_text_from_the_server_can_not_reach_the_terminals_controls() -> None:
    body = json.dumps({"detail": "a\x1b[2Jb\n" + "c" * 5000}).encode()
    message = answers.error("x", 404, {}, body).message
    assert message.startswith("a\\x1b[2Jb\\nccc")
    assert len(message) < 1100


def test_retry_after_is_passed_on() -> None:
    error = answers.error("x", 503, {"Retry-After": "9"}, b"")
    assert isinstance(error, TryAgain)
    assert error.retry_after_seconds == 9


def test_a_page_is_read() -> None:
    digest = Digest.of(b"x")
    text = {"blobs": [{"digest": str(digest), "size": 1, "new": True}], "next": str(digest)}
    page = answers.page(json.dumps(text).encode())
    assert page == answers.Page((answers.Entry(digest, 1),), digest)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"digest": "md5:00", "size": 1}', b'{"digest": 1, "size": 1}']
)
def test_a_foreign_acknowledgement_is_no_success(body: bytes) -> None:
    with pytest.raises(errors.Unavailable):
        answers.stored(200, body)


NUMBERS = {
    "replication": 3, "max_replication": 3, "blobs": 9, "below_target": 0, "at_target": 9,
    "over_target": 0, "bytes_to_move": 0, "estimated_seconds": None, "settled": True,
}  # fmt: skip


def test_an_overview_is_read_and_what_is_not_known_is_left_out() -> None:
    node = {"node_id": "n1", "state": "down", "status": None, "down_seconds": 12, "mood": "sad"}
    found = answers.overview({**NUMBERS, "nodes": [node], "phase": "of the moon"})
    assert found.replication == 3
    assert found.nodes[0] == answers.ClusterNode("n1", "down", down_seconds=12)


def test_a_status_without_healing_is_read() -> None:
    status = {"blobs": 1, "blob_bytes": 2, "disk": {"free_bytes": 3}, "healing": None}
    node = {"node_id": "n1", "state": "alive", "status": status}
    found = answers.overview({**NUMBERS, "nodes": [node]})
    assert found.nodes[0].status == answers.NodeStatus(1, 2, answers.Disk(3))


@pytest.mark.parametrize("content", [{}, NUMBERS, {**NUMBERS, "nodes": [{"node_id": 5}]}])
def test_an_overview_that_is_none_of_ours_is_unavailable(content: dict[str, object]) -> None:
    with pytest.raises(errors.Unavailable, match="not a Tierce node's"):
        answers.overview(content)
