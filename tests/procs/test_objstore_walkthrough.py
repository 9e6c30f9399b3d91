"""objstore's README, command by command: two nodes, a bucket, and a client that is curl."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tierce.core import ulids
from tierce.testing.calls import Reply, call
from tierce.testing.cluster_processes import free_port
from tierce.testing.objstore_processes import (
    KEYS,
    Bucket,
    ObjstoreNode,
    file_meta,
    get_file,
    has_own_copy,
    new_id,
    put_file,
)
from tierce.testing.processes import Address, wait_for
from tierce.testing.rclone import BUCKET, serve_s3

pytestmark = pytest.mark.procs

FILE = b"It works!\n"
CONTENT = b"It works!"
FORM = "application/x-www-form-urlencoded"
HEADERS = {
    "accept-ranges", "content-length", "content-type", "date", "etag", "last-modified",
    "x-content-type-options", "x-meta-consistencylevel", "x-meta-id", "x-meta-name",
}  # fmt: skip


class Pair:
    """The two nodes of the README, with free ports in place of its own, and their bucket."""

    def __init__(self, root: Path, endpoint: str, bucket: Bucket) -> None:
        self.bucket = bucket
        ports = [free_port() for _ in range(6)]
        self.debug = [Address(f"127.0.0.1:{port}") for port in ports[4:]]
        first, second = (
            ["-d", "1", f"--private-addr=0.0.0.0:{private}", f"--public-addr=127.0.0.1:{public}",
             f"--debug-addr={debug}", "--bucket", BUCKET, "--endpoint", endpoint]
            for private, public, debug in zip(ports[:2], ports[2:4], self.debug, strict=True)
        )  # fmt: skip
        environment = {**KEYS, "TIERCE_RESERVE_BYTES": "0"}
        self.one = ObjstoreNode(root / "one", *first, environment=environment)
        self.two = ObjstoreNode(
            root / "two", "-N", f"localhost:{ports[0]}", *second, environment=environment
        )

    @property
    def nodes(self) -> tuple[ObjstoreNode, ObjstoreNode]:
        return self.one, self.two

    def start(self) -> None:
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_ready()
        wait_for(self._are_joined, "the nodes to find each other", pause=0.1)

    def lose_state(self) -> None:
        """Delete local state, and restart both nodes."""
        for node in self.nodes:
            node.stop()
            for name in ("state", "files"):
                shutil.rmtree(node.data.parent / name)
        self.start()

    def _are_joined(self) -> bool:
        told = [call(each, "GET", "/private/v1/nodes").json for each in self.debug]
        return all(len(nodes) == 2 for nodes in told)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    root = tmp_path_factory.mktemp("readme")
    (root / "test.txt").write_bytes(FILE)
    with ExitStack() as stack:
        server = stack.enter_context(serve_s3(root / "s3"))
        bucket = stack.enter_context(closing(Bucket(server.endpoint)))
        found = Pair(root, server.endpoint, bucket)
        for node in found.nodes:
            stack.enter_context(node)
        found.start()
        yield found
        for node in found.nodes:
            node.stop()


@pytest.fixture
def test_file(tmp_path: Path) -> Path:
    path = tmp_path / "test.txt"
    path.write_bytes(FILE)
    return path


def curl(node: ObjstoreNode, path: str, *words: str) -> Reply:
    """Run curl, and read what it shows."""
    shown = subprocess.run(
        ["curl", "-s", "-i", "--noproxy", "*", *words, f"localhost:{node.address.port}{path}"],
        capture_output=True,
        check=True,
        timeout=30,
    ).stdout
    head, _, body = shown.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return Reply(int(first.split()[1]), headers, body)


def post_form(node: ObjstoreNode, path: str, file: Path, headers: dict[str, str]) -> Reply:
    """``curl -d @FILE``, which drops line ends and says that it is a form."""
    if shutil.which("curl"):
        words = [word for item in headers.items() for word in ("-H", ": ".join(item))]
        return curl(node, path, "-d", f"@{file}", *words)
    sent = file.read_bytes().translate(None, b"\r\n\0")
    return call(node.address, "POST", path, sent, {"Content-Type": FORM, **headers})


def put_test_txt(node: ObjstoreNode, file: Path, level: int) -> str:
    """The README's first steps: a new id, and the file put under it. Returns the id."""
    reply = call(node.address, "GET", "/api/v1/id")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    key = reply.body.decode()
    assert ulids.parse(key) == key
    headers = {"X-Meta-ConsistencyLevel": str(level), "X-Meta-Name": "test.txt", "X-Meta-ID": key}
    reply = post_form(node, "/api/v1/put", file, headers)
    assert (reply.status, reply.body) == (200, b"")
    assert set(reply.headers) == {"content-length", "date"}
    return key


def check_test_txt(reply: Reply, key: str, level: int, *more: str) -> None:
    """The answer to a get, with exactly these headers; ``more`` are flags among them."""
    assert (reply.status, reply.body) == (200, CONTENT)
    assert set(reply.headers) == HEADERS | set(more)
    expected = {
        "accept-ranges": "bytes",
        "content-length": "9",
        "content-type": "text/plain; charset=utf-8",
        "x-meta-consistencylevel": str(level),
        "x-meta-id": key,
        "x-meta-name": "test.txt",
    } | dict.fromkeys(more, "true")
    assert {name: reply.headers[name] for name in expected} == expected
    modified = parsedate_to_datetime(reply.headers["last-modified"]).timestamp()
    assert abs(modified - time.time()) < 60


def test_a_file_of_level_2_is_on_both_nodes_and_in_the_bucket(pair: Pair, test_file: Path) -> None:
    key = put_test_txt(pair.one, test_file, 2)
    for node in pair.nodes:
        check_test_txt(curl(node, f"/api/v1/get/{key}"), key, 2)
        meta = file_meta(node, key).json
        assert 0 < time.time_ns() - meta.pop("timestamp") < 60 * 10**9
        assert meta == {
            "id": key, "name": "test.txt", "size": 9, "user_meta": None, "is_symlink": False,
            "consistency": 2, "is_deleted": False, "is_fetched": False,
        }  # fmt: skip
    stored = pair.bucket.get(key)
    assert (stored.body, stored.content_type) == (CONTENT, "text/plain; charset=utf-8")
    wanted = {"id": key, "name": "test.txt", "size": "9", "consistency": "2"}
    assert {name: stored.metadata[name] for name in wanted} == wanted
    assert int(stored.metadata["timestamp"]) == file_meta(pair.one, key).json["timestamp"]
    assert set(stored.metadata) == {*wanted, "timestamp", "tierce"}


def test_user_metadata_is_in_headers_in_json_and_in_the_bucket(pair: Pair) -> None:
    key = new_id()
    told = '{"Color":"red","size":"xl"}'
    assert put_file(pair.one, key, b"with metadata", 1, X_Meta_UserMeta=told).status == 200
    for node in pair.nodes:
        wait_for(lambda node=node: file_meta(node, key).status == 200, "the record")  # type: ignore[misc]
        assert file_meta(node, key).json["user_meta"] == {"Color": "red", "size": "xl"}
        assert get_file(node, key).headers["x-meta-usermeta"] == told
    assert pair.bucket.get(key).metadata["usermeta-color"] == "red"
    assert pair.bucket.get(key).metadata["usermeta-size"] == "xl"


def test_a_file_of_level_1_comes_from_the_other_node_as_a_symlink(pair: Pair) -> None:
    key, data = new_id(), b"on one node only"
    assert put_file(pair.one, key, data, 1, X_Meta_Name="a.bin").status == 200
    reply = get_file(pair.one, key)
    assert (reply.status, reply.body) == (200, data)
    assert "x-meta-symlink" not in reply.headers
    wait_for(lambda: file_meta(pair.two, key).status == 200, "the other node to know it")
    assert file_meta(pair.two, key).json["is_symlink"] is True
    for _ in range(2):  # it is not stored there
        reply = get_file(pair.two, key)
        assert (reply.status, reply.body) == (200, data)
        assert reply.headers["x-meta-symlink"] == "true"
        assert "x-meta-fetched" not in reply.headers
    assert pair.bucket.get(key).body == data


def test_a_file_of_level_0_is_not_in_the_bucket(pair: Pair) -> None:
    key = new_id()
    assert put_file(pair.one, key, b"here only", 0).status == 200
    wait_for(lambda: get_file(pair.two, key).status == 200, "the other node to know it")
    assert get_file(pair.two, key).headers["x-meta-symlink"] == "true"
    assert key not in pair.bucket.keys()  # noqa: SIM118 - not a dictionary's


def test_a_deleted_file_is_404_and_said_to_be_deleted(pair: Pair, test_file: Path) -> None:
    key = put_test_txt(pair.one, test_file, 2)
    metadata = {
        "x-meta-consistencylevel": "2", "x-meta-deleted": "true",
        "x-meta-id": key, "x-meta-name": "test.txt",
    }  # fmt: skip
    gone = call(pair.two.address, "POST", f"/api/v1/delete/{key}")
    assert (gone.status, gone.body) == (200, b"")
    assert gone.headers.items() >= metadata.items()
    for node in pair.nodes:
        for headers in ({}, {"X-Meta-Fetch": "1"}):  # what the upstream still has stays deleted
            reply = call(node.address, "GET", f"/api/v1/get/{key}", headers=headers)
            assert (reply.status, reply.body) == (404, b"")
            assert reply.headers.items() >= metadata.items()
        meta = file_meta(node, key)
        assert (meta.status, meta.json["is_deleted"]) == (200, True)
    assert call(pair.one.address, "POST", f"/api/v1/delete/{new_id()}").status == 404


def test_a_put_after_a_delete_brings_a_file_back(pair: Pair) -> None:
    key = new_id()
    assert put_file(pair.one, key, b"first", 2).status == 200
    assert call(pair.two.address, "POST", f"/api/v1/delete/{key}").status == 200
    assert put_file(pair.one, key, b"second", 2).status == 200
    for node in pair.nodes:
        assert get_file(node, key).body == b"second"
    assert pair.bucket.get(key).body == b"second"


def test_after_both_nodes_lost_their_state_a_file_is_fetched_and_copied_again(
    pair: Pair, test_file: Path
) -> None:
    key = put_test_txt(pair.one, test_file, 2)
    before = pair.bucket.get(key)
    pair.lose_state()
    for node in pair.nodes:
        reply = curl(node, f"/api/v1/get/{key}")
        assert (reply.status, reply.body) == (404, b"")
        assert not any(name.startswith("x-meta") for name in reply.headers)
    reply = curl(pair.one, f"/api/v1/get/{key}", "-H", "X-Meta-Fetch: 1")
    check_test_txt(reply, key, 2, "x-meta-fetched")
    check_test_txt(curl(pair.one, f"/api/v1/get/{key}"), key, 2)
    wait_for(lambda: has_own_copy(pair.two, key, CONTENT), "the copy on the other node")
    check_test_txt(curl(pair.two, f"/api/v1/get/{key}"), key, 2)
    assert pair.bucket.get(key) == before


def test_a_put_without_a_body_raises_the_level(pair: Pair) -> None:
    key, data = new_id(), b"to be raised"
    assert put_file(pair.one, key, data, 0, X_Meta_Name="up.txt").status == 200
    for level in (1, 2):
        assert put_file(pair.one, key, b"", level).status == 200
        reply = get_file(pair.one, key)
        assert (reply.body, reply.headers["x-meta-name"]) == (data, "up.txt")
        assert reply.headers["x-meta-consistencylevel"] == str(level)
        stored = pair.bucket.get(key)
        assert (stored.body, stored.metadata["consistency"]) == (data, str(level))
    assert has_own_copy(pair.two, key, data)
    assert get_file(pair.two, key).headers["x-meta-consistencylevel"] == "2"


def test_a_level_is_raised_by_the_node_that_has_no_copy(pair: Pair) -> None:
    key, data = new_id(), b"to be raised from afar" * 10_000
    assert put_file(pair.one, key, data, 1).status == 200
    wait_for(lambda: file_meta(pair.two, key).status == 200, "the other node to know it")
    assert put_file(pair.two, key, b"", 2).status == 200
    for node in pair.nodes:
        assert has_own_copy(node, key, data)
    assert pair.bucket.get(key).body == data


@pytest.mark.parametrize("size", [30, 300_000])
def test_heads_ranges_and_dates_are_answered_by_both_nodes(pair: Pair, size: int) -> None:
    key = new_id()
    data = bytes(number * 7 % 251 for number in range(size))
    assert put_file(pair.one, key, data, 1, X_Meta_Name="r.bin").status == 200
    wait_for(lambda: file_meta(pair.two, key).status == 200, "the other node to know it")
    for node in pair.nodes:
        path = f"/api/v1/get/{key}"
        whole = get_file(node, key)
        head = call(node.address, "HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert {**head.headers, "date": ""} == {**whole.headers, "date": ""}
        part = call(node.address, "GET", path, headers={"Range": f"bytes=10-{size - 10}"})
        assert (part.status, part.body) == (206, data[10 : size - 9])
        assert part.headers["content-range"] == f"bytes 10-{size - 10}/{size}"
        beyond = call(node.address, "GET", path, headers={"Range": f"bytes={size}-"})
        assert beyond.status == 416
        since = {"If-Modified-Since": whole.headers["last-modified"]}
        assert call(node.address, "GET", path, headers=since).status == 304


def test_bad_requests_are_answered_as_objstore_does(pair: Pair, test_file: Path) -> None:
    def answer(headers: dict[str, str]) -> tuple[int, bytes]:
        reply = post_form(pair.one, "/api/v1/put", test_file, headers)
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
        return reply.status, reply.body

    assert answer({}) == (400, b"error: ID not specified, use /id to get one")
    assert answer({"X-Meta-ID": "nope"}) == (400, b"error: objstore: not a valid ULID: nope")
    level = {"X-Meta-ID": new_id(), "X-Meta-ConsistencyLevel": "3"}
    assert answer(level) == (400, b"error: objstore: invalid consistency level")


def test_the_rest_of_the_public_api_answers(pair: Pair) -> None:
    for node in pair.nodes:
        assert call(node.address, "GET", "/api/v1/ping").body.decode() == node.node_id
        assert call(node.address, "GET", "/api/v1/version").status == 200
        stats = call(node.address, "GET", "/api/v1/stats").json["disk_stats"]
        assert 0 < stats["bytes_free"] < stats["bytes_all"]


def test_the_nodes_say_what_the_readme_shows(pair: Pair) -> None:
    assert "no additional cluster nodes specified, current node starts solo" in pair.one.log
    joined = pair.one.addresses["private"].port
    assert f"joining to cluster [localhost:{joined}]" in pair.two.log
    for node in pair.nodes:
        assert f"tierce: node ID: {node.node_id}\n" in node.stdout.read_text()
