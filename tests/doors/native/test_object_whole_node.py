"""Named objects on a whole node: its index on disk, its blobs, and what is left after a restart."""

from pathlib import Path

from tests.doors.native.node import Node, node_in_thread, object_path, problem

from tierce.core.digest import Digest
from tierce.testing.calls import Reply

DATA = b"what an object holds"
LARGE = bytes(range(256)) * 4096


def get(node: Node, key: str) -> Reply:
    return node.call("GET", object_path("photos", key))


def changes(node: Node, since: str = "") -> tuple[list[tuple[str, bool]], str]:
    page = node.call("GET", f"/v1/changes?since={since}").json
    return [(each["key"], each["deleted"]) for each in page["changes"]], page["next"]


def test_objects_and_positions_outlive_a_restart(tmp_path: Path) -> None:
    with node_in_thread(tmp_path / "data") as node:
        assert node.put_object("photos", "a/../small", DATA, Tierce_Meta_X="y").status == 201
        assert node.put_object("photos", "large", LARGE).status == 201
        assert node.put_object("photos", "gone", DATA).status == 201
        assert node.call("DELETE", object_path("photos", "gone")).status == 204
        before, position = changes(node)
    with node_in_thread(tmp_path / "data") as node:
        assert get(node, "large").body == LARGE
        found = get(node, "a/../small")
        assert (found.body, found.headers["tierce-meta-x"]) == (DATA, "y")
        assert get(node, "gone").status == 404
        assert (
            changes(node)[0] == before == [("a/../small", False), ("large", False), ("gone", True)]
        )
        assert node.put_object("photos", "large", DATA, If_None_Match="*").status == 412
        assert node.put_object("photos", "large", DATA).status == 200
        assert changes(node, position)[0] == [("large", False)]
        assert node.call("GET", "/v1/buckets").json == {"buckets": ["photos"]}


def test_a_position_of_a_lost_disk_is_a_conflict(tmp_path: Path) -> None:
    with node_in_thread(tmp_path / "one") as node:
        node.put_object("photos", "a", DATA)
        _, position = changes(node)
    with node_in_thread(tmp_path / "two") as node:
        node.put_object("photos", "a", DATA)
        reply = node.call("GET", f"/v1/changes?since={position}")
        assert problem(reply) == "conflict"


def test_the_content_of_an_object_is_not_removed_as_a_blob(node: Node) -> None:
    node.put_object("photos", "kept", DATA)
    blob = f"/v1/blobs/{Digest.of(DATA)}"
    assert node.call("GET", blob).body == DATA
    assert problem(node.call("DELETE", blob)) == "conflict"
    assert get(node, "kept").body == DATA
    node.call("DELETE", object_path("photos", "kept"))
    assert node.call("DELETE", blob).status in (204, 404)


def test_a_read_only_node_takes_no_objects(frozen_node: Node) -> None:
    assert problem(frozen_node.put_object("photos", "k", DATA)) == "read-only"


def test_a_full_node_takes_no_objects(full_node: Node) -> None:
    assert problem(full_node.put_object("photos", "k", DATA)) == "full"


def test_copies_that_no_cluster_can_hold_are_refused(lonely_node: Node) -> None:
    assert problem(lonely_node.put_object("photos", "k", DATA)) == "unavailable"
    assert get(lonely_node, "k").status == 404
    assert changes(lonely_node)[0] == []


def test_a_refused_write_leaves_nothing_behind(tmp_path: Path) -> None:
    with node_in_thread(tmp_path / "data") as node:
        assert node.put_object("photos", "k", LARGE, If_Match='"x"').status == 412
        assert not node.has(Digest.of(LARGE))
        assert not [name for name in node.files() if name.startswith(("files/", "tmp/"))]
