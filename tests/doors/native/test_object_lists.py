"""Lists of objects and of buckets, and the feed of changes."""

import asyncio
import threading
import time
from collections.abc import Callable
from urllib.parse import quote, urlencode

import pytest
from tests.doors.native.node import Node, object_path, problem
from tests.doors.native.object_node import EPOCH, ObjectNode

from tierce.names.changes import Epoch
from tierce.testing.calls import Reply

KEYS = ["a/1", "a/2", "a b+c/1", "b", "ü/1", "日本"]
PATIENCE_SECONDS = 10.0


@pytest.fixture
def filled(fresh_objects: ObjectNode) -> ObjectNode:
    for key in KEYS:
        assert fresh_objects.node.put_object("photos", key, key.encode()).status == 201
    return fresh_objects


def ask(node: Node, path: str, **parameters: object) -> Reply:
    return node.call("GET", f"{path}?{urlencode(parameters)}")


def listed(node: Node, **parameters: object) -> tuple[list[str], list[str], str | None]:
    page = ask(node, "/v1/buckets/photos/objects", **parameters).json
    return [each["key"] for each in page["objects"]], page["prefixes"], page["next"]


def test_a_list_is_in_the_order_of_the_bytes(filled: ObjectNode) -> None:
    assert listed(filled.node) == (sorted(KEYS, key=str.encode), [], None)


def test_an_entry_of_a_list_says_what_the_upload_said(filled: ObjectNode) -> None:
    said = filled.node.put_object("photos", "b", b"new").json
    page = ask(filled.node, "/v1/buckets/photos/objects", prefix="b").json
    assert page["objects"] == [said]
    assert (page["bucket"], page["prefix"], page["delimiter"]) == ("photos", "b", "")


def test_a_prefix_is_taken_to_the_letter(filled: ObjectNode) -> None:
    assert listed(filled.node, prefix="a b+c/")[0] == ["a b+c/1"]
    assert listed(filled.node, prefix="ü")[0] == ["ü/1"]
    assert listed(filled.node, prefix="x")[0] == []


def test_a_delimiter_folds(filled: ObjectNode) -> None:
    expected = (["b", "日本"], ["a b+c/", "a/", "ü/"], None)
    assert listed(filled.node, delimiter="/") == expected


@pytest.mark.parametrize("delimiter", ["", "/"])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_together_are_the_whole(filled: ObjectNode, delimiter: str, limit: int) -> None:
    keys, prefixes, _ = listed(filled.node, delimiter=delimiter)
    found: tuple[list[str], list[str]] = ([], [])
    after: str | None = ""
    while after is not None:
        page = listed(filled.node, delimiter=delimiter, limit=limit, after=after)
        assert len(page[0]) + len(page[1]) <= limit
        found[0].extend(page[0])
        found[1].extend(page[1])
        after = page[2]
    assert found == (keys, prefixes)


def test_deleted_objects_are_in_no_list(filled: ObjectNode) -> None:
    filled.node.call("DELETE", object_path("photos", "b"))
    assert "b" not in listed(filled.node)[0]


def test_a_bucket_without_objects_is_empty(filled: ObjectNode) -> None:
    page = ask(filled.node, "/v1/buckets/no-such-bucket/objects").json
    assert (page["objects"], page["prefixes"], page["next"]) == ([], [], None)


def test_buckets_are_those_with_objects(filled: ObjectNode) -> None:
    filled.node.put_object("a-bucket", "k")
    filled.node.put_object("zzz", "k")
    filled.node.call("DELETE", object_path("zzz", "k"))
    assert filled.node.call("GET", "/v1/buckets").json == {"buckets": ["a-bucket", "photos"]}


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "1e2", "٣"])
@pytest.mark.parametrize("path", ["/v1/buckets/photos/objects", "/v1/changes"])
def test_a_limit_has_its_bounds(objects: ObjectNode, path: str, limit: str) -> None:
    reply = objects.node.call("GET", f"{path}?limit={quote(limit)}")
    assert problem(reply) == "bad-request"


@pytest.mark.parametrize("name", ["prefix", "after", "delimiter"])
def test_what_is_no_utf_8_is_refused_in_a_query(objects: ObjectNode, name: str) -> None:
    for value in ("%ff", "%ED%A0%80"):
        reply = objects.node.call("GET", f"/v1/buckets/photos/objects?{name}={value}")
        assert problem(reply) == "bad-request"


@pytest.mark.parametrize("name", ["prefix", "after", "delimiter"])
def test_what_is_longer_than_any_key_is_refused(objects: ObjectNode, name: str) -> None:
    path = f"/v1/buckets/photos/objects?{name}="
    assert problem(objects.node.call("GET", path + "x" * 1025)) == "too-large"
    assert objects.node.call("GET", path + "x" * 1024).status == 200


def changes(node: Node, **parameters: object) -> tuple[list[tuple[int, str, bool]], str]:
    page = ask(node, "/v1/changes", **parameters).json
    found = [(each["seq"], each["key"], each["deleted"]) for each in page["changes"]]
    return found, page["next"]


def test_the_feed_has_each_name_once_at_its_last_change(fresh_objects: ObjectNode) -> None:
    node = fresh_objects.node
    for key in ("a", "b", "a"):
        node.put_object("photos", key, b"1")
    node.call("DELETE", object_path("photos", "b"))
    assert changes(node) == ([(3, "a", False), (4, "b", True)], f"{EPOCH}-4")


def test_a_change_says_what_the_upload_said(fresh_objects: ObjectNode) -> None:
    said = fresh_objects.node.put_object("photos", "a", b"1", Tierce_Meta_X="y").json
    (change,) = ask(fresh_objects.node, "/v1/changes").json["changes"]
    assert change == {"seq": 1, "deleted": False, **said}


def test_a_tombstone_has_no_content(fresh_objects: ObjectNode) -> None:
    fresh_objects.node.put_object("photos", "a", b"1", Tierce_Meta_X="y")
    fresh_objects.node.call("DELETE", object_path("photos", "a"))
    (change,) = ask(fresh_objects.node, "/v1/changes").json["changes"]
    assert (change["deleted"], change["digest"], change["size"]) == (True, None, 0)
    assert (change["content_type"], change["metadata"]) == ("", {})


def test_a_reader_goes_on_where_it_was(filled: ObjectNode) -> None:
    found: list[str] = []
    since = ""
    while True:
        page, since = changes(filled.node, since=since, limit=4)
        if not page:
            break
        found += [key for _, key, _ in page]
    assert found == KEYS
    assert since == f"{EPOCH}-{len(KEYS)}"
    filled.node.put_object("photos", "more")
    assert [key for _, key, _ in changes(filled.node, since=since)[0]] == ["more"]


@pytest.mark.parametrize("since", ["x", "1", "E-", "-1", "E-1-2", "E-x", "ü-1", "\0"])
def test_what_is_no_position_is_refused(objects: ObjectNode, since: str) -> None:
    assert problem(ask(objects.node, "/v1/changes", since=since)) == "bad-request"


@pytest.mark.parametrize("since", ["Other-1", f"{EPOCH}-1000"])
def test_a_position_of_another_history_is_a_conflict(objects: ObjectNode, since: str) -> None:
    reply = ask(objects.node, "/v1/changes", since=since)
    assert (reply.status, problem(reply)) == (409, "conflict")


def test_a_position_of_an_earlier_run_is_good(filled: ObjectNode) -> None:
    begin = filled.index.begin_epoch("Later")
    asyncio.run_coroutine_threadsafe(begin, filled.loop).result()
    assert filled.index.epochs()[-1] == Epoch("Later", len(KEYS))
    assert changes(filled.node, since=f"{EPOCH}-5") == ([(6, KEYS[5], False)], "Later-6")


@pytest.mark.parametrize("wait", ["61", "-1", "1.5", "x", ""])
def test_a_wait_has_its_bounds(objects: ObjectNode, wait: str) -> None:
    assert problem(ask(objects.node, "/v1/changes", wait=wait)) == "bad-request"


def test_a_wait_ends_without_changes(filled: ObjectNode) -> None:
    position = f"{EPOCH}-{len(KEYS)}"
    began = time.monotonic()
    assert changes(filled.node, since=position, wait=1) == ([], position)
    assert time.monotonic() - began >= 0.9


def test_nobody_waits_where_there_are_changes(filled: ObjectNode) -> None:
    began = time.monotonic()
    assert len(changes(filled.node, wait=60)[0]) == len(KEYS)
    assert time.monotonic() - began < PATIENCE_SECONDS


class Waiting:
    """A request that waits for changes in a thread of its own."""

    def __init__(self, node: Node, since: str) -> None:
        self.page: tuple[list[tuple[int, str, bool]], str] | None = None
        self._thread = threading.Thread(target=self._run, args=(node, since))
        self._thread.start()

    def _run(self, node: Node, since: str) -> None:
        self.page = changes(node, since=since, wait=60)

    def ended(self) -> None:
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def until_waiting(objects: ObjectNode) -> None:
    """Wait until a request is being handled."""
    until(lambda: any(each._request_in_progress for each in objects.server.connections))


def test_a_wait_ends_with_the_first_change(filled: ObjectNode) -> None:
    waiting = Waiting(filled.node, f"{EPOCH}-{len(KEYS)}")
    until_waiting(filled)
    filled.node.put_object("photos", "news")
    waiting.ended()
    assert waiting.page == ([(7, "news", False)], f"{EPOCH}-7")


def test_a_stop_does_not_wait_for_those_who_wait(filled: ObjectNode) -> None:
    position = f"{EPOCH}-{len(KEYS)}"
    waiting = Waiting(filled.node, position)
    until_waiting(filled)
    began = time.monotonic()
    drained = asyncio.run_coroutine_threadsafe(filled.server.drain(30.0), filled.loop).result()
    assert drained
    assert time.monotonic() - began < PATIENCE_SECONDS
    waiting.ended()
    assert waiting.page == ([], position)


def test_a_client_that_goes_away_is_waited_for_no_longer(filled: ObjectNode) -> None:
    until(lambda: not filled.server.connections)
    before = len(asyncio.all_tasks(filled.loop))
    with filled.node.wire() as wire:
        wire.request("GET", f"/v1/changes?since={EPOCH}-{len(KEYS)}&wait=60")
        until_waiting(filled)
        assert len(asyncio.all_tasks(filled.loop)) > before
    until(lambda: len(asyncio.all_tasks(filled.loop)) <= before)
