"""Deleting and putting again; markers and deny files that an operator makes by hand."""

from pathlib import Path

import pytest
from tests.doors.dtfc.wire import (
    DELETED,
    HASH,
    HELLO,
    NOT_FOUND,
    STORED,
    UNKNOWN,
    Dtfc,
    content_of,
    in_tree,
)

from tierce.testing.serving import Served, serving


async def test_what_is_deleted_is_gone(node: Dtfc) -> None:
    await node.put()
    await node.delete()
    assert (await node.get()).text == NOT_FOUND
    assert (await node.get(f"/{HASH}/nopeerload")).text == NOT_FOUND
    assert (await node.get(f"/{HASH}/ffmetadata")).text == NOT_FOUND
    assert (await node.head()).status == 404
    assert (await node.delete()).text == NOT_FOUND


async def test_a_put_brings_back_what_was_deleted(node: Dtfc) -> None:
    await node.put("old.txt")
    await node.delete()
    assert (await node.put()).body == STORED
    assert (await node.get()).body == HELLO
    assert (await node.head()).headers["content-disposition"] == 'attachment; filename="foo.bin"'


async def test_a_deletion_of_an_earlier_time_spares_what_was_put_since(node: Dtfc) -> None:
    await node.put()
    date = "Sat, 21 Nov 2015 05:26:01 GMT"
    spared = await node.call("DELETE", f"/{HASH}", f"If-Unmodified-Since: {date}")
    assert spared.status == 412
    assert (await node.get()).body == HELLO
    modified = (await node.head()).headers["last-modified"]
    deleted = await node.call("DELETE", f"/{HASH}", f"If-Unmodified-Since: {modified}")
    assert deleted.body == DELETED


async def test_to_delete_what_is_unknown_leaves_nothing(node: Dtfc, served: Served) -> None:
    assert (await node.delete(f"/{HASH}")).text == NOT_FOUND
    await Dtfc(served.native).call("PUT", f"/v1/blobs/sha512:{HASH}", body=HELLO)
    assert (await node.get()).body == HELLO


async def test_what_another_door_stored_is_hidden_and_stays_there(
    node: Dtfc, served: Served
) -> None:
    native = Dtfc(served.native)
    await native.call("PUT", f"/v1/blobs/sha512:{HASH}", body=HELLO)
    assert content_of(await node.delete())["filename"] == ""
    assert (await node.get()).text == NOT_FOUND
    assert (await native.get(f"/v1/blobs/sha512:{HASH}")).body == HELLO


async def test_deleting_on_all_of_no_peers_deletes_here(node: Dtfc) -> None:
    await node.put()
    answer = await node.delete(f"/{HASH}/allpeers")
    assert answer.body == DELETED.removesuffix(b"}") + b',"peers":{}}'
    assert (await node.get()).text == NOT_FOUND


async def test_a_403_marker_forbids_a_file(node: Dtfc, served: Served) -> None:
    await node.put()
    marker = in_tree(served.data) / "403"
    marker.touch()
    forbidden = ("HTTP/1.1 403 Forbidden", "text/plain; charset=utf-8", b"403 Forbidden.\n")
    assert (await node.get()).text == forbidden
    assert (await node.get(f"/{HASH}/ffmetadata")).text == forbidden
    assert (await node.delete()).text == forbidden
    assert (await node.delete(f"/{HASH}/allpeers")).text == forbidden
    head = await node.head()
    assert (head.status, head.body) == (403, b"")
    marker.unlink()
    assert (await node.get()).body == HELLO


async def test_a_404_marker_hides_a_file(node: Dtfc, served: Served) -> None:
    await node.put()
    (in_tree(served.data) / "404").touch()
    assert (await node.get()).text == NOT_FOUND
    assert (await node.head()).status == 404
    assert (await node.delete()).text == NOT_FOUND
    assert (await node.put()).status == 200  # made by hand, it stays
    assert (await node.get()).text == NOT_FOUND


async def test_of_both_markers_403_counts(node: Dtfc, served: Served) -> None:
    for name in ("403", "404"):
        (in_tree(served.data) / name).touch()
    assert (await node.get()).status == 403


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("GET", b"403 Forbidden. Downloading is disabled.\n"),
        ("PUT", b"403 Forbidden. Uploading is disabled.\n"),
        ("DELETE", b"403 Forbidden. Deletion is disabled.\n"),
        ("HEAD", b""),
    ],
)
async def test_a_deny_file_forbids_its_method_alone(
    tmp_path: Path, method: str, text: bytes
) -> None:
    deny = tmp_path / "deny"
    async with serving(tmp_path / "data", ("dtfc",), dtfc_deny=str(deny)) as served:
        node = Dtfc(served.urls["dtfc"])
        await node.put()
        file = Path(f"{deny}{method.lower()}")
        file.touch()
        for target in (f"/{HASH}", f"/{UNKNOWN}"):
            answer = await node.call(method, target)
            assert (answer.status, answer.body) == (403, text)
        others = {"GET": 200, "HEAD": 200, "PUT": 200, "DELETE": 404}
        others.pop(method)
        for other, status in others.items():
            target = f"/{UNKNOWN if other == 'DELETE' else HASH}"
            assert (await node.call(other, target)).status == status
        assert (await node.get("/health.html")).status == 200
        file.unlink()
        assert (await node.call(method, f"/{HASH}")).status == 200


async def test_a_refused_upload_is_not_kept(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", ("dtfc",), dtfc_deny=f"{tmp_path}/") as served:
        node = Dtfc(served.urls["dtfc"])
        (tmp_path / "put").touch()
        assert (await node.put()).status == 403
        assert (await node.get()).text == NOT_FOUND
