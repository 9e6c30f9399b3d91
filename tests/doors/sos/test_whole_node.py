"""The SOS doors of a whole node, beside others: one store, and nothing is lost over a restart."""

import json
from pathlib import Path

from tests.doors.cask.wire import ask
from tests.doors.sos.node import HELLO, ID, OK

from tierce.testing.serving import serving

DOORS = ("sos-upload", "sos-download", "sos-blob", "native", "cask")


async def test_what_is_uploaded_is_there_by_every_door_and_after_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path, DOORS) as node:
        answer = await ask(
            node.urls["sos-upload"], "POST", "/upload", "X-Mime-Type: text/plain", body=HELLO
        )
        assert answer.body == OK
        named = await ask(node.urls["sos-blob"], "POST", "/blob/steve", "X-A: 1", body=b"first")
        assert named.status == 200
        assert (await ask(node.cask, "GET", f"/file/sha1:{ID}/")).body == HELLO
        assert (await ask(node.native, "GET", f"/v1/blobs/sha1:{ID}")).body == HELLO
        native = await ask(node.native, "GET", f"/v1/buckets/sos/objects/{ID}")
        assert (native.body, native.headers["content-type"]) == (HELLO, "text/plain")
        await ask(node.native, "PUT", "/v1/buckets/sos/objects/by-native", body=b"native")
    async with serving(tmp_path, DOORS) as node:
        found = await ask(node.urls["sos-download"], "GET", f"/fetch/{ID}.txt")
        assert (found.body, found.headers["x-mime-type"]) == (HELLO, "text/plain")
        for sos_id, body in (("steve", b"first"), ("by-native", b"native")):
            assert (await ask(node.urls["sos-blob"], "GET", f"/blob/{sos_id}")).body == body
        listed = await ask(node.urls["sos-blob"], "GET", "/blobs")
        assert json.loads(listed.body.split(b"\r\n")[1]) == [ID, "by-native", "steve"]
        page = (await ask(node.native, "GET", "/metrics")).body.decode()
    for door in ("sos-download", "sos-blob"):
        assert f'tierce_requests_total{{door="{door}",method="GET"' in page


async def test_uploads_and_downloads_pass_through_to_the_listed_servers(tmp_path: Path) -> None:
    async with (
        serving(tmp_path / "one", ("sos-blob",)) as one,
        serving(tmp_path / "two", ("sos-blob",)) as two,
        serving(
            tmp_path / "front",
            ("sos-upload", "sos-download"),
            sos_servers=(one.urls["sos-blob"], f"other={two.urls['sos-blob']}"),
        ) as front,
    ):
        answer = await ask(front.urls["sos-upload"], "POST", "/upload", "X-A: 1", body=HELLO)
        assert answer.body == OK
        lists = [
            (await ask(each.urls["sos-blob"], "GET", "/blobs")).body.count(ID.encode())
            for each in (one, two)
        ]
        assert lists == [1, 0]
        found = await ask(front.urls["sos-download"], "GET", f"/fetch/{ID}")
        assert (found.body, found.headers["x-a"]) == (HELLO, "1")
