"""Peers, the way to https, tokens, the program's own files, and what the node says of itself."""

import asyncio
import hashlib
import json
import random
from pathlib import Path

import pytest
from tests.doors.dtfc.wire import (
    HASH,
    HELLO,
    NOT_FOUND,
    STORED,
    UNKNOWN,
    Dtfc,
    content_of,
    hash_of,
    in_tree,
)

from tierce.app import serve
from tierce.core.errors import BadRequest
from tierce.core.listen import Listen
from tierce.core.rights import Right, Token
from tierce.core.settings import Settings
from tierce.testing.processes import PATIENCE_SECONDS
from tierce.testing.serving import serving

NOBODY = "http://127.0.0.1:9"  # the discard service, which no machine has today


async def test_what_is_missing_is_loaded_from_a_peer_and_kept(tmp_path: Path) -> None:
    async with serving(tmp_path / "a", ("dtfc",)) as far:
        await Dtfc(far.urls["dtfc"]).put()
        async with serving(
            tmp_path / "b", ("dtfc", "native"), dtfc_peers=(NOBODY, f"{far.urls['dtfc']}/")
        ) as near:
            node = Dtfc(near.urls["dtfc"])
            assert (await node.get(f"/{HASH}/nopeerload")).text == NOT_FOUND
            assert (await node.head()).status == 404
            assert (await node.head(f"/{HASH}/ffmetadata")).status == 404
            answer = await node.get()
            assert (answer.status, answer.body) == (200, HELLO)
            assert answer.headers["content-disposition"] == 'attachment; filename="foo.bin"'
            assert (await node.get(f"/{HASH}/nopeerload")).body == HELLO
            assert (await node.get(f"/{UNKNOWN}")).text == NOT_FOUND
            native = Dtfc(near.native)
            said = json.loads((await native.get("/v1/status")).body)["agent"]["dtfc"]
            assert (said["loading"], said["loaded"], said["loaded_bytes"]) == (0, 1, 11)
            assert said["deletes_waiting"] == 0
            page = (await native.get("/metrics")).body
            assert b"\ntierce_dtfc_deletes_waiting 0" in page
            assert b"\ntierce_loaded_files_total" in page


async def test_a_copy_that_went_bad_is_replaced_by_that_of_a_peer(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(3 * 1024 * 1024)
    hashed = hashlib.sha512(content).hexdigest()
    async with serving(tmp_path / "a", ("dtfc",)) as far:
        await Dtfc(far.urls["dtfc"]).call("PUT", "/foo.bin", body=content)
        async with serving(tmp_path / "b", ("dtfc",), dtfc_peers=(far.urls["dtfc"],)) as near:
            node = Dtfc(near.urls["dtfc"])
            await node.call("PUT", "/foo.bin", body=content)
            for position in (0, 2 * 1024 * 1024):
                (file,) = (each for each in near.data.glob("files/**/*") if each.is_file())
                with file.open("r+b") as copy:
                    copy.seek(position)
                    copy.write(bytes([content[position] ^ 1]))
                assert (await node.get(f"/{hashed}")).body == content
                # Who reads along has it all a moment before it is kept.
                async with asyncio.timeout(20):
                    while (kept := await node.get(f"/{hashed}/nopeerload")).status != 200:
                        await asyncio.sleep(0.01)
                assert kept.body == content
            assert len(list((near.data / "quarantine").iterdir())) == 2


async def test_a_file_that_was_deleted_is_not_loaded_again(tmp_path: Path) -> None:
    async with serving(tmp_path / "a", ("dtfc",)) as far:
        await Dtfc(far.urls["dtfc"]).put()
        async with serving(tmp_path / "b", ("dtfc",), dtfc_peers=(far.urls["dtfc"],)) as near:
            node = Dtfc(near.urls["dtfc"])
            await node.get()
            await node.delete()
            assert (await node.get()).text == NOT_FOUND
            assert (await Dtfc(far.urls["dtfc"]).get()).body == HELLO


async def test_peers_that_are_down_are_not_taken_for_a_no(tmp_path: Path) -> None:
    async with serving(tmp_path, ("dtfc",), dtfc_peers=(NOBODY,)) as served:
        answer = await Dtfc(served.urls["dtfc"]).get()
        assert (answer.status, answer.body) == (502, b"Could not retrieve file.\n")


async def test_a_deletion_reaches_all_peers(tmp_path: Path) -> None:
    async with (
        serving(tmp_path / "a", ("dtfc",)) as far,
        serving(tmp_path / "c", ("dtfc",)) as empty,
    ):
        peers = {far.urls["dtfc"]: "deleted", empty.urls["dtfc"]: "not found", NOBODY: "queued"}
        await Dtfc(far.urls["dtfc"]).put()
        async with serving(tmp_path / "b", ("dtfc", "native"), dtfc_peers=tuple(peers)) as near:
            node = Dtfc(near.urls["dtfc"])
            await node.put()
            found = content_of(await node.delete(f"/{HASH}/allpeers"))
            assert list(found)[:3] == ["deleted", "sha512", "filename"]
            assert found["peers"] == peers
            assert (await Dtfc(far.urls["dtfc"]).get()).text == NOT_FOUND


async def test_a_deletion_that_no_peer_has_heard_yet_claims_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, ("dtfc",), dtfc_peers=(NOBODY,)) as served:
        answer = await Dtfc(served.urls["dtfc"]).delete(f"/{UNKNOWN}/allpeers")
        found = content_of(answer)
        assert (answer.status, found["deleted"], found["peers"]) == (200, False, {NOBODY: "queued"})


async def test_the_peer_list_is_read_again_when_it_changes(tmp_path: Path) -> None:
    listed = tmp_path / "peers"
    listed.write_text("\n")
    async with serving(tmp_path / "a", ("dtfc",)) as far:
        await Dtfc(far.urls["dtfc"]).put()
        async with serving(tmp_path / "b", ("dtfc",), dtfc_peer_list=listed) as near:
            node = Dtfc(near.urls["dtfc"])
            assert (await node.get()).text == NOT_FOUND
            listed.write_text(f"{far.urls['dtfc']}/\n")
            assert (await node.call("PUT", "/refreshpeers.html")).status == 200
            assert (await node.get()).body == HELLO
            listed.unlink()
            assert (await node.call("PUT", "/refreshpeers.html")).status == 200


@pytest.mark.parametrize(
    ("host", "headers", "target", "is_sent"),
    [
        ("files.example.com", [], f"/{HASH}?x=1", True),
        ("files.example.com:8001", [], f"/{HASH}", True),
        ("files.example.com", [], "/anything", True),
        ("files.example.com", [], f"/{HASH}/ffmetadata", True),
        ("files.example.com", ["X-Forwarded-Proto: https"], f"/{HASH}", False),
        ("files.example.com", ["X-Forwarded-Proto: http"], f"/{HASH}", True),
        ("files.example.com", [], f"/{HASH}/nopeerload", False),
        ("files.example.com", [], "/health.html", False),
        ("127.0.0.1:8001", [], f"/{HASH}", False),
        ("127.0.0.1", [], f"/{HASH}", False),
        ("localhost:8001", [], f"/{HASH}", False),
        ("[::1]:8001", [], f"/{HASH}", False),
        ("::1", [], f"/{HASH}", False),
    ],
)
async def test_who_gets_a_file_may_be_sent_to_https(
    tmp_path: Path, host: str, headers: list[str], target: str, is_sent: bool
) -> None:
    async with serving(tmp_path, ("dtfc",), dtfc_https_redirect=True) as served:
        node = Dtfc(served.urls["dtfc"])
        answer = await node.call("GET", target, *headers, host=host)
        if is_sent:
            assert answer.line == "HTTP/1.1 301 Moved Permanently"
            assert answer.headers["location"] == f"https://{host}{target}"
        else:
            assert answer.status in (200, 404)
        for method in ("HEAD", "PUT", "DELETE"):
            assert (await node.call(method, f"/{UNKNOWN}", host=host)).status in (200, 404)


async def test_nobody_is_sent_to_https_unless_it_is_set(node: Dtfc) -> None:
    await node.put()
    assert (await node.call("GET", f"/{HASH}", host="files.example.com")).status == 200


async def test_each_method_needs_its_right(tmp_path: Path) -> None:
    tokens = tuple(Token.of(each, frozenset({each}), each) for each in Right)
    async with serving(tmp_path, ("dtfc",), tokens=tokens) as served:
        node = Dtfc(served.urls["dtfc"])
        for method, target, right in (
            ("PUT", "/foo.bin", "write"),
            ("PUT", "/refreshpeers.html", "write"),
            ("GET", f"/{HASH}", "read"),
            ("HEAD", f"/{HASH}", "read"),
            ("GET", f"/{HASH}/nopeerload", "read"),
            ("DELETE", f"/{HASH}/allpeers", "write"),
        ):
            body = HELLO if method == "PUT" else b""
            other = "read" if right == "write" else "write"
            statuses = [(await node.call(method, target, body=body)).status]
            for token in (other, right):
                sent = f"Authorization: Bearer {token}"
                statuses.append((await node.call(method, target, sent, body=body)).status)
            assert statuses == [401, 403, 200], (method, target)
        assert (await node.delete(f"/{HASH}")).headers[
            "www-authenticate"
        ] == 'Bearer realm="tierce"'
        assert (await node.get("/health.html")).status == 200


def leave_behind(base: Path, content: bytes, claimed: str = "") -> str:
    """A file as the program leaves it in its base directory; its hash."""
    hash_text = claimed or hash_of(content)
    directory = in_tree(base, hash_text)
    (directory / "data").write_bytes(content)
    (directory / "filename").write_text("first.txt\nHoliday.JPG\n")
    return hash_text


@pytest.mark.parametrize("option", ["", "/nopeerload"])
@pytest.mark.parametrize("size", [11, 3_000_000], ids=["small", "large"])
async def test_files_of_the_program_are_taken_over(tmp_path: Path, option: str, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"the end"
    hash_text = leave_behind(tmp_path, content)
    async with serving(tmp_path, ("dtfc", "native")) as served:
        node = Dtfc(served.urls["dtfc"])
        head = await node.head(f"/{hash_text}")
        assert (head.status, head.headers["content-length"]) == (200, str(len(content)))
        answer = await node.get(f"/{hash_text}{option}")
        assert (answer.status, answer.body) == (200, content)
        assert answer.headers["content-disposition"] == 'attachment; filename="holiday.jpg"'
        assert answer.headers["content-type"] == "image/jpeg"
        async with asyncio.timeout(PATIENCE_SECONDS):  # a reader does not wait until it is kept
            while (await Dtfc(served.native).head(f"/v1/blobs/sha512:{hash_text}")).status != 200:
                await asyncio.sleep(0.01)
    (in_tree(tmp_path, hash_text) / "data").unlink()
    async with serving(tmp_path, ("dtfc",)) as served:
        assert (await Dtfc(served.urls["dtfc"]).get(f"/{hash_text}")).body == content


async def test_a_file_of_the_program_that_is_damaged_is_not_served(tmp_path: Path) -> None:
    leave_behind(tmp_path, b"not what it was", HASH)
    async with serving(tmp_path, ("dtfc",)) as served:
        node = Dtfc(served.urls["dtfc"])
        assert (await node.get(f"/{HASH}/nopeerload")).text == NOT_FOUND
        assert (await node.get(f"/{HASH}")).status == 502
        assert (await node.put()).body == STORED
        assert (await node.get()).body == HELLO


async def test_a_file_of_the_program_can_be_deleted(tmp_path: Path) -> None:
    hash_text = leave_behind(tmp_path, HELLO)
    async with serving(tmp_path, ("dtfc",)) as served:
        node = Dtfc(served.urls["dtfc"])
        assert content_of(await node.delete(f"/{hash_text}"))["filename"] == "holiday.jpg"
        assert (await node.get()).text == NOT_FOUND
        assert (await node.get(f"/{HASH}/nopeerload")).text == NOT_FOUND
        assert (await node.head()).status == 404


@pytest.mark.parametrize(
    "text", [None, "".join(f"http://10.0.0.{n}/\n" for n in range(101))], ids=["none", "many"]
)
def test_a_node_does_not_start_without_its_peer_list(tmp_path: Path, text: str | None) -> None:
    listed = tmp_path / "peers"
    if text is not None:
        listed.write_text(text)
    settings = Settings(
        data=tmp_path / "data",
        listen=(Listen("dtfc", "127.0.0.1", 0),),
        private=Listen.private("127.0.0.1:0"),
        dtfc_peer_list=listed,
    )
    with pytest.raises(BadRequest, match="peer list"):
        serve(settings, lambda node_id, listen: None)
    assert not (tmp_path / "data").exists()
