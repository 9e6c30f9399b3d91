"""``tierce import`` from the trees and buckets that Cask, dtfc and SOS leave, into a real node."""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tierce.cli.main import main
from tierce.testing import rclone
from tierce.testing.calls import call
from tierce.testing.cluster_processes import ClusterProcesses
from tierce.testing.processes import NodeProcess, wait_for

pytestmark = pytest.mark.procs

FILES = 1000
CORRUPT = (10, 500, 990)
LARGE = (500, 501)
LARGE_BYTES = 3_000_000


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    data = tmp_path_factory.mktemp("node") / "data"
    with NodeProcess(data, doors=("native", "cask", "dtfc", "sos-blob")) as started:
        yield started.start()
        started.stop()


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> "Runner":
    return Runner(capfd)


class Runner:
    """Runs ``tierce import`` in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *words: str) -> Ran:
        self._capture.readouterr()
        code = main(["import", *words])
        return Ran(code, *self._capture.readouterr())


def url(node: NodeProcess, door: str = "native") -> str:
    return f"http://{node.addresses[door]}"


def content(number: int) -> bytes:
    rng = random.Random(number)
    return rng.randbytes(LARGE_BYTES if number in LARGE else rng.randrange(3000))


def on_disk(number: int) -> bytes:
    good = content(number)
    return good[:-1] + bytes([good[-1] ^ 1]) if number in CORRUPT else good


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def leaf(root: Path, digits: str) -> Path:
    """The directory of a hash, as Cask and dtfc make it."""
    return root.joinpath(*(digits[at : at + 2] for at in range(0, len(digits), 2)))


def put(path: Path, data: bytes) -> Path:
    for folder in [*reversed(path.relative_to(path.anchor).parents)][1:]:  # most are there
        with contextlib.suppress(FileExistsError):
            os.mkdir(path.anchor / folder)
    path.write_bytes(data)
    return path


def held(node: NodeProcess) -> set[str]:
    """The SHA-1 blobs that the node holds."""
    reply = call(node.address, "GET", "/v1/blobs?limit=10000")
    names = {blob["digest"] for blob in reply.json["blobs"]}
    return {name.removeprefix("sha1:") for name in names if name.startswith("sha1:")}


def test_997_of_1000_cask_files_arrive_and_three_are_named_though_it_is_killed_midway(
    node: NodeProcess, run: Runner, tmp_path: Path
) -> None:
    before = held(node)
    paths = [
        put(leaf(tmp_path / "cask" / "sha1", sha1(content(number))) / "data", on_disk(number))
        for number in range(FILES)
    ]
    put(paths[0].with_name("data.tmp"), b"foreign")
    words = ["--from", "cask-disk", f"{tmp_path}/cask", "--url", url(node)]

    killed = subprocess.Popen([sys.executable, "-m", "tierce", "import", *words, "--jobs", "1"])
    try:
        wait_for(lambda: len(held(node)) > len(before) + 50, "some files to be imported")
    finally:
        killed.kill()
    assert killed.wait() == -signal.SIGKILL

    ran = run(*words)
    assert ran.code == 1
    sums, *named = ran.out.splitlines()
    found = re.fullmatch(
        r"(\d+) imported \(\d+ bytes\), (\d+) there already, 3 corrupt, 1 skipped", sums
    )
    assert found is not None, sums
    # What was on its way when it was killed may be there or not.
    imported, there = map(int, found.groups())
    assert (imported + there, there > 50, imported > 0) == (FILES - len(CORRUPT), True, True)
    assert sorted(named) == sorted(f"  corrupt: {paths[number]}" for number in CORRUPT)
    assert f"skipped {paths[0].with_name('data.tmp')}" in ran.err
    good = {sha1(content(number)) for number in range(FILES) if number not in CORRUPT}
    assert held(node) - before == good
    for number in (0, LARGE[1]):
        reply = call(node.addresses["cask"], "GET", f"/file/sha1:{sha1(content(number))}/")
        assert reply.body == content(number)

    again = run(*words)
    assert again.out.startswith("0 imported (0 bytes), 997 there already, 3 corrupt, 1 skipped\n")


def test_a_cluster_takes_an_import_while_one_of_its_nodes_dies(run: Runner, tmp_path: Path) -> None:
    numbers = range(4000, 4150)
    for number in numbers:
        put(leaf(tmp_path / "cask" / "sha1", sha1(content(number))) / "data", content(number))
    root = tmp_path / "nodes"
    root.mkdir()
    with ClusterProcesses(root, 4) as cluster:
        words = ["--from", "cask-disk", f"{tmp_path}/cask", "--url", url(cluster.nodes[0])]
        words += ["--jobs", "2"]
        with ThreadPoolExecutor(1) as pool:
            started = pool.submit(
                subprocess.run, [sys.executable, "-m", "tierce", "import", *words], check=False
            )
            wait_for(lambda: len(held(cluster.nodes[0])) > 10, "some files to be imported")
            cluster.nodes[2].kill()
            started.result()
        ran = run(*words)  # what met the dying node is imported now
        assert ran.code == 0, ran
        for number in numbers:
            path = f"/v1/blobs/sha1:{sha1(content(number))}"
            assert call(cluster.nodes[1].address, "GET", path).body == content(number)


def test_an_interruption_says_how_far_it_was(node: NodeProcess, tmp_path: Path) -> None:
    before = held(node)
    for number in range(2000, 2600):
        put(tmp_path / sha1(content(number)), content(number))
    words = ["--from", "sos", str(tmp_path), "--url", url(node, "sos-blob"), "--jobs", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tierce", "import", *words], stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: len(held(node)) > len(before) + 20, "some files to be imported")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "tierce: stopped; " in err
    assert "Traceback" not in err


def test_a_bucket_of_a_cask_node(
    node: NodeProcess, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(name)
    numbers = [*range(3000, 3020), *LARGE]
    with rclone.serve_s3(tmp_path / "s3") as s3:
        for number in numbers:
            key = f"sha1:{sha1(content(number + 7000 * (number in LARGE)))}"
            put(s3.directory / key, content(number))
        put(s3.directory / "other", b"foreign")
        words = ["--from", "cask-s3", f"s3://{rclone.BUCKET}?endpoint={s3.endpoint}"]
        words += ["--url", url(node)]
        monkeypatch.setenv("CASK_S3_ACCESS_KEY", rclone.ACCESS_KEY)
        monkeypatch.setenv("CASK_S3_SECRET_KEY", rclone.SECRET_KEY)
        ran = run(*words)
        assert ran.code == 1
        assert ran.out.startswith("20 imported (")
        assert ", 0 there already, 2 corrupt, 1 skipped\n" in ran.out
        assert {sha1(content(number)) for number in range(3000, 3020)} <= held(node)
        assert run(*words).out.startswith("0 imported (0 bytes), 20 there already, 2 corrupt")

        monkeypatch.setenv("CASK_S3_SECRET_KEY", "wrong")
        refused = run(*words)
        assert (refused.code, refused.out) == (4, "")
        assert "Give credentials that may list the bucket" in refused.err


def test_files_of_dtfc_keep_their_last_names_and_markers_hide_theirs(
    node: NodeProcess, run: Runner, tmp_path: Path
) -> None:
    def add(data: bytes, names: str, digits: str = "") -> str:
        found = digits or hashlib.sha512(data).hexdigest()
        put(leaf(tmp_path, found) / "data", data)
        put(leaf(tmp_path, found) / "filename", names.encode())
        return found

    plain = add(b"plain", "first.txt\nMy File.JPG\n")
    nameless = add(b"nameless", "")
    strange = add(b"strange", "refreshpeers.html\n")
    empty = add(b"", "empty.txt\n")
    large = add(content(LARGE[0]), "large.bin\n")
    add(b"bytes", "wrong.txt\n", digits=hashlib.sha512(b"other").hexdigest())
    for marker in ("403", "404"):
        put(leaf(tmp_path, add(marker.encode(), "marked.txt\n")) / marker, b"")
    words = ["--from", "dtfc", str(tmp_path), "--url", url(node, "dtfc")]
    ran = run(*words)
    assert ran.code == 1
    assert ran.out.startswith("5 imported (")
    assert ", 0 there already, 1 corrupt, 2 skipped\n" in ran.out

    def name_of(digits: str) -> str:
        reply = call(node.addresses["dtfc"], "GET", f"/{digits}/nopeerload")
        assert hashlib.sha512(reply.body).hexdigest() == digits
        return reply.headers["content-disposition"].partition("filename=")[2].strip('"')

    digests = (plain, nameless, strange, empty, large)
    names = ["my-file.jpg", "", "refreshpeers.html", "empty.txt", "large.bin"]
    assert [name_of(each) for each in digests] == names
    assert call(node.addresses["dtfc"], "PUT", "/renamed.txt", b"plain").status == 200
    again = run(*words)
    assert again.out.startswith("0 imported (0 bytes), 5 there already, 1 corrupt, 2 skipped")
    assert name_of(plain) == "renamed.txt"


def test_objects_of_sos_bring_their_headers_and_replace_nothing(
    node: NodeProcess, run: Runner, tmp_path: Path
) -> None:
    data = b"an object of sos"
    put(tmp_path / sha1(data), data)
    put(tmp_path / f"{sha1(data)}.json", json.dumps({"X-Mime-Type": "image/png"}).encode())
    put(tmp_path / "any-Name_1.txt", b"under a name")
    put(tmp_path / "alone.json", b'{"X-Mine": "an object"}')
    put(tmp_path / sha1(b"right"), b"wrong")
    put(tmp_path / ".hidden", b"foreign")
    words = ["--from", "sos", str(tmp_path), "--url", url(node, "sos-blob")]
    ran = run(*words)
    assert ran.code == 1
    assert ran.out.splitlines() == [
        "3 imported (51 bytes), 2 of them without a digest to verify by, 0 there already, "
        "1 corrupt, 1 skipped",
        f"  corrupt: {tmp_path}/{sha1(b'right')}",
    ]
    door = node.addresses["sos-blob"]
    reply = call(door, "GET", f"/blob/{sha1(data)}")
    assert (reply.body, reply.headers["x-mime-type"]) == (data, "image/png")
    assert call(door, "GET", "/blob/alone.json").body == b'{"X-Mine": "an object"}'
    assert call(door, "GET", f"/blob/{sha1(b'right')}").status == 404

    newer = {"Content-Type": "application/octet-stream"}
    assert call(door, "POST", "/blob/any-Name_1.txt", b"newer", newer).status == 200
    again = run(*words)
    assert ", 2 there already, 1 corrupt, 1 failed, 1 skipped\n" in again.out
    assert "any-Name_1.txt: the node has other bytes under the id" in again.err
    assert call(door, "GET", "/blob/any-Name_1.txt").body == b"newer"


def test_a_tree_that_the_node_itself_reads_may_go_after_the_import(
    node: NodeProcess, run: Runner
) -> None:
    data = b"in the tree of the node"
    digits = hashlib.sha512(data).hexdigest()
    folder = leaf(node.data, digits)
    put(folder / "data", data)
    put(folder / "filename", b"tree.txt\n")
    door = node.addresses["dtfc"]
    assert call(door, "HEAD", f"/{digits}").status == 200  # from the tree
    ran = run("--from", "dtfc", str(node.data), "--url", url(node, "dtfc"))
    assert ran.code == 0
    shutil.rmtree(node.data / digits[:2])
    reply = call(door, "GET", f"/{digits}/nopeerload")
    assert reply.body == data
    assert "tree.txt" in reply.headers["content-disposition"]
