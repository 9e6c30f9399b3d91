"""Attachments into the store and back, with a server of which any request may go wrong."""

import copy
import hashlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tierce.client import couch as couch_module
from tierce.client.couch import Couch, Moved, NoDocument
from tierce.core.errors import (
    BadRequest,
    Conflict,
    Corrupt,
    NotFound,
    Refused,
    TierceError,
    Unavailable,
)
from tierce.core.limits import MIB
from tierce.testing.couch import Attachment, CouchAndStore, Fault

PHOTO = random.Random(1).randbytes(300_000)
TEXT = b"It was a fine day. " * 50
BOTH = {"a.jpg": PHOTO, "b.txt": TEXT}


def sha512(data: bytes) -> str:
    return hashlib.sha512(data).hexdigest()


@pytest.fixture
async def server() -> AsyncIterator[CouchAndStore]:
    async with CouchAndStore().serving() as server:
        yield server


@pytest.fixture
async def couch(server: CouchAndStore) -> AsyncIterator[Couch]:
    async with Couch(server.database, server.store, stall_seconds=5) as couch:
        yield couch


async def offload(couch: Couch, doc_id: str = "beach", **options: Any) -> Moved:
    return await couch.offload(await couch.document(doc_id), **options)


async def restore(couch: Couch, doc_id: str = "beach") -> Moved:
    return await couch.restore(await couch.document(doc_id))


def seen(server: CouchAndStore, method: str, start: str) -> int:
    """How many requests there were with this method and beginning of the path."""
    return sum(each.startswith(f"{method} {start}") for each in server.seen)


async def test_the_map_takes_the_place_of_attachments(server: CouchAndStore, couch: Couch) -> None:
    server.add("beach", BOTH, year=2015)
    heard: list[int] = []
    assert await offload(couch, moved=heard.append) == Moved(2, len(PHOTO) + len(TEXT))
    assert server.documents["beach"].fields == {
        "year": 2015,
        "dtfc": {
            "a.jpg": {
                "sha512": sha512(PHOTO), "length": len(PHOTO), "content_type": "image/jpeg"
            },
            "b.txt": {"sha512": sha512(TEXT), "length": len(TEXT), "content_type": "text/plain"},
        },
    }  # fmt: skip
    assert not server.documents["beach"].attachments
    assert sorted(server.files.values()) == sorted([PHOTO, TEXT])
    assert heard == [len(PHOTO), len(TEXT)]


async def test_what_is_moved_already_is_not_looked_at_again(
    server: CouchAndStore, couch: Couch
) -> None:
    server.add("beach", BOTH)
    await offload(couch)
    before = len(server.seen)
    assert await offload(couch) == Moved()
    assert len(server.seen) == before + 1  # for the document


async def test_attachments_come_back_as_they_were(server: CouchAndStore, couch: Couch) -> None:
    server.add("beach", BOTH, year=2015)
    await offload(couch)
    assert await restore(couch) == Moved(2, len(PHOTO) + len(TEXT))
    document = server.documents["beach"]
    assert document.fields == {"year": 2015}
    found = {name: each[:2] for name, each in document.attachments.items()}
    assert found == {"a.jpg": (PHOTO, "image/jpeg"), "b.txt": (TEXT, "text/plain")}


async def test_small_attachments_may_stay(server: CouchAndStore, couch: Couch) -> None:
    server.add("beach", BOTH)
    assert (await offload(couch, min_bytes=len(TEXT) + 1)).attachments == 1
    assert server.documents["beach"].attachments.keys() == {"b.txt"}
    assert server.documents["beach"].fields["dtfc"].keys() == {"a.jpg"}


async def test_an_empty_attachment_is_one(server: CouchAndStore, couch: Couch) -> None:
    server.add("beach", {"empty": b""})
    assert await offload(couch) == Moved(1, 0)
    assert await restore(couch) == Moved(1, 0)
    assert server.documents["beach"].attachments["empty"].data == b""


async def test_a_large_attachment_goes_by_way_of_the_disk(
    server: CouchAndStore, couch: Couch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierce.client.couch_sites.MEMORY_BYTES", 1000)
    server.add("beach", BOTH)
    await offload(couch)
    await restore(couch)
    assert server.data("beach", "a.jpg") == PHOTO


@pytest.mark.parametrize(
    ("name", "kept_as"),
    [
        ("My File (1).JPG", "my-file-1.jpg"),
        ("2015/07/beach.jpg", "2015-07-beach.jpg"),
        ("100%?#&.jpg", "100-.jpg"),
        ("nöte.txt", "note.txt"),
        ("日本", "attachment"),
        (" ", "attachment"),
        ("..", "attachment"),
        ("refreshpeers.html", "attachment-refreshpeers.html"),
        ("health.html", "health.html"),
        ('line\nend\\"', "lineend"),
    ],
)
async def test_any_name_goes_there_and_back(
    server: CouchAndStore, couch: Couch, name: str, kept_as: str
) -> None:
    doc_id = "two words/ü?%"
    server.add(doc_id, {name: PHOTO})
    await offload(couch, doc_id)
    assert server.names == [kept_as]
    assert server.documents[doc_id].fields["dtfc"].keys() == {name}
    await restore(couch, doc_id)
    assert server.documents[doc_id].attachments[name].data == PHOTO


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("is_back", [False, True], ids=["offload", "restore"])
async def test_whatever_fails_at_whatever_request_nothing_is_lost(
    server: CouchAndStore, couch: Couch, fault: Fault, is_back: bool
) -> None:
    """Then each attachment is in the document, or in the store and in the document's map."""
    run = restore if is_back else offload
    server.add("beach", BOTH, year=2015)
    if is_back:
        await offload(couch)
    start = copy.deepcopy((server.documents, server.files))
    server.fault, failures = fault, 0
    for server.fault_at in range(100):
        server.documents, server.files = copy.deepcopy(start)
        server.seen = []
        try:
            await run(couch)
        except TierceError:
            failures += 1
        was_met = len(server.seen) > server.fault_at
        if fault is Fault.DELETED and was_met:
            assert not server.documents
            continue
        is_replaced = was_met and fault is Fault.REPLACED
        assert server.data("beach", "b.txt") == TEXT
        assert server.data("beach", "a.jpg") == (server.replacement.data if is_replaced else PHOTO)
        assert server.documents["beach"].fields["year"] == 2015
        changes = 1 if was_met and fault is Fault.CHANGED else 0
        assert server.documents["beach"].fields.get("changes", 0) == changes
        if is_replaced and is_back:
            assert sha512(PHOTO) in server.files
            continue
        server.fault_at = 1000
        await run(couch)  # run again, it is completed
        assert bool(server.documents["beach"].attachments) == is_back
        assert ("dtfc" in server.documents["beach"].fields) != is_back
        if not was_met:
            break
    assert server.fault_at == 1000, "a fault was met at each of a hundred requests"
    # Somebody else's change is no failure.
    assert (failures > 0) == (fault not in (Fault.CHANGED, Fault.REPLACED))


@pytest.mark.parametrize(
    ("fault", "reason"), [(Fault.CHANGED, "again and again"), (Fault.CONFLICT, "planned")]
)
async def test_a_document_that_never_rests_is_left_alone(
    server: CouchAndStore, couch: Couch, fault: Fault, reason: str
) -> None:
    server.add("beach", {"a.jpg": b""})
    document = await couch.document("beach")
    server.fault, server.fault_at = fault, 4 if fault is Fault.CONFLICT else -1
    with pytest.raises(Conflict, match=reason):
        await couch.offload(document)
    assert server.documents["beach"].attachments.keys() == {"a.jpg"}


async def test_a_change_of_another_field_costs_no_second_upload(
    server: CouchAndStore, couch: Couch
) -> None:
    server.add("beach", BOTH)
    document = await couch.document("beach")
    server.fault, server.fault_at = Fault.CHANGED, 7  # the write
    await couch.offload(document)
    assert server.documents["beach"].fields["changes"] == 1
    assert not server.documents["beach"].attachments
    assert seen(server, "PUT", "/store/") == 2


async def test_a_body_that_came_compressed_by_its_maker_is_kept_as_it_was(
    server: CouchAndStore, couch: Couch
) -> None:
    """The database announces the size of what came, and is believed by its digest."""
    made = server.add("beach", {"b.txt": TEXT})
    document = await couch.document("beach")
    stub = document["_attachments"]["b.txt"]
    document["_attachments"]["b.txt"] = {**stub, "length": stub["encoded_length"]}
    await couch.offload(document)
    assert server.files == {sha512(TEXT): TEXT}
    assert made.fields == {}


async def test_a_deleted_document_is_told_from_a_missing_file(
    server: CouchAndStore, couch: Couch
) -> None:
    server.add("beach", BOTH)
    document = await couch.document("beach")
    server.documents.clear()
    with pytest.raises(NoDocument):
        await couch.offload(document)


async def test_a_store_that_loses_files_gets_none(server: CouchAndStore, couch: Couch) -> None:
    server.add("beach", BOTH)
    server.after_put = server.files.clear
    with pytest.raises(Unavailable, match=r"took the attachment 'a.jpg', but does not have it"):
        await offload(couch)
    assert server.data("beach", "a.jpg") == PHOTO


@pytest.mark.parametrize("said", [{}, {"sha512": "0" * 128}, {"sha512": 5}])
async def test_a_store_that_acknowledges_something_else_is_not_believed(
    server: CouchAndStore, couch: Couch, said: dict[str, Any]
) -> None:
    server.add("beach", BOTH)
    server.acknowledged = said
    with pytest.raises(Corrupt, match="does not say that it has"):
        await offload(couch)
    assert server.documents["beach"].attachments.keys() == BOTH.keys()


async def test_a_store_that_keeps_other_bytes_is_not_believed(
    server: CouchAndStore, couch: Couch
) -> None:
    server.add("beach", BOTH)
    server.after_put = lambda: server.files.update(dict.fromkeys(server.files, b"zeros"))
    with pytest.raises(Corrupt, match="with other bytes"):
        await offload(couch)
    assert server.documents["beach"].attachments.keys() == BOTH.keys()


async def test_a_new_attachment_by_the_name_of_a_moved_one_does_not_push_it_out(
    server: CouchAndStore, couch: Couch
) -> None:
    server.add("beach", {"a.jpg": b"old"})
    await offload(couch)
    server.documents["beach"].attachments["a.jpg"] = Attachment(b"new", "image/jpeg", 2)
    aside = f"a.jpg@{sha512(b'old')[:32]}"
    assert (await offload(couch)).aside == (aside,)
    kept = server.documents["beach"].fields["dtfc"]
    assert {name: entry["sha512"] for name, entry in kept.items()} == {
        "a.jpg": sha512(b"new"), aside: sha512(b"old")
    }  # fmt: skip
    await restore(couch)
    found = server.documents["beach"].attachments
    assert {name: each.data for name, each in found.items()} == {"a.jpg": b"new", aside: b"old"}


async def test_the_same_content_by_the_same_name_keeps_what_others_noted(
    server: CouchAndStore, couch: Couch
) -> None:
    noted = {"a.jpg": {"sha512": sha512(PHOTO).upper(), "by": "us"}}
    server.add("beach", {"a.jpg": PHOTO}, dtfc=noted)
    assert (await offload(couch)).aside == ()
    entry = server.documents["beach"].fields["dtfc"]["a.jpg"]
    assert entry["by"] == "us"
    assert entry["sha512"] == sha512(PHOTO)


@pytest.mark.parametrize("field", ["a text", [], {"a.jpg": None, "c": 1}, {"a.jpg": {"sha512": 1}}])
async def test_a_field_that_is_no_map_of_files_is_left(
    server: CouchAndStore, couch: Couch, field: object
) -> None:
    server.add("beach", BOTH, dtfc=field)
    before = copy.deepcopy(server.documents)
    with pytest.raises(BadRequest):
        await restore(couch)
    if field != {"a.jpg": None, "c": 1}:
        with pytest.raises(BadRequest):
            await offload(couch)
    assert server.documents == before or field == {"a.jpg": None, "c": 1}


async def test_another_attachment_is_not_overwritten_by_a_restored_one(
    server: CouchAndStore, couch: Couch
) -> None:
    server.add("beach", BOTH)
    await offload(couch)
    server.documents["beach"].attachments["b.txt"] = Attachment(b"other", "text/plain", 2)
    assert await restore(couch) == Moved(1, len(PHOTO), ("b.txt",))
    document = server.documents["beach"]
    assert document.attachments["b.txt"].data == b"other"
    assert document.fields["dtfc"].keys() == {"b.txt"}
    assert await restore(couch) == Moved(left=("b.txt",))


async def test_a_database_that_keeps_other_bytes_is_not_believed(
    server: CouchAndStore, couch: Couch
) -> None:
    server.add("beach", BOTH)
    await offload(couch)
    server.kept_of = lambda data: data[:-1]
    with pytest.raises(Corrupt, match=r"the database gives the attachment 'a.jpg' back"):
        await restore(couch)
    assert server.documents["beach"].fields["dtfc"].keys() == BOTH.keys()


async def test_a_map_by_hand_is_restored_with_the_store_s_type(
    server: CouchAndStore, couch: Couch
) -> None:
    server.files[sha512(PHOTO)] = PHOTO
    server.add("beach", {}, dtfc={"c.bin": {"sha512": sha512(PHOTO)}})
    await restore(couch)
    assert server.documents["beach"].attachments["c.bin"][:2] == (
        PHOTO, "application/octet-stream"
    )  # fmt: skip


async def test_a_file_that_the_store_lacks_stays_in_the_map(
    server: CouchAndStore, couch: Couch
) -> None:
    server.add("beach", BOTH)
    await offload(couch)
    server.files.pop(sha512(TEXT))
    with pytest.raises(NotFound, match="404 Not Found"):
        await restore(couch)
    assert "b.txt" in server.documents["beach"].fields["dtfc"]
    assert server.data("beach", "a.jpg") == PHOTO


@pytest.mark.parametrize("page_bytes", [16 * MIB, 100], ids=["pages", "ids alone"])
async def test_all_documents_are_listed_but_those_of_the_design(
    server: CouchAndStore, couch: Couch, monkeypatch: pytest.MonkeyPatch, page_bytes: int
) -> None:
    monkeypatch.setattr(couch_module, "PAGE_DOCUMENTS", 3)
    monkeypatch.setattr(couch_module, "PAGE_BYTES", page_bytes)
    wanted = ["a", "b/ü", "c", '"d"', "e", "f", "g"]
    for doc_id in [*wanted, "_design/view"]:
        server.add(doc_id, {"x.txt": TEXT})
    listed = [each async for each in couch.documents()]
    assert [each.doc_id for each in listed] == sorted(wanted)
    assert all((each.document is None) == (page_bytes == 100) for each in listed)


@pytest.mark.parametrize("doc_id", ["_design/view", "_local/mine"])
async def test_a_design_document_can_not_be_named_either(
    server: CouchAndStore, couch: Couch, doc_id: str
) -> None:
    server.add(doc_id, BOTH)
    with pytest.raises(BadRequest, match="left alone"):
        await couch.document(doc_id)


async def test_an_empty_database_lists_nothing(couch: Couch) -> None:
    await couch.check()
    assert [each async for each in couch.documents()] == []


@pytest.mark.parametrize(
    "listing",
    [
        [],
        {},
        {"rows": 5},
        {"rows": [5]},
        {"rows": [{"id": "a", "doc": 5}]},
        {"rows": [{"id": "a", "doc": {"_id": "a"}}]},
        {"rows": [{"id": "a", "doc": {"_id": "a", "_rev": "1-a", "_attachments": [1]}}]},
        {"rows": [{"id": "a", "doc": {"_id": "a", "_rev": "1-a", "_attachments": {"b": {}}}}]},
    ],
)
async def test_an_answer_that_is_not_couchdb_s_is_refused(
    server: CouchAndStore, couch: Couch, listing: object
) -> None:
    server.listing = listing
    with pytest.raises(Unavailable, match=r"does not answer as CouchDB|no JSON object"):
        assert [each async for each in couch.documents()] == []


async def test_a_number_that_json_has_no_word_for_is_not_written(
    server: CouchAndStore, couch: Couch
) -> None:
    server.add("beach", BOTH)
    document = await couch.document("beach")
    with pytest.raises(BadRequest, match="can't be written as JSON"):
        await couch.offload({**document, "much": float("inf")})
    assert server.documents["beach"].attachments.keys() == BOTH.keys()


async def test_credentials_go_each_to_its_own_server(server: CouchAndStore) -> None:
    server.authorization = {"photos": "Basic w7xzZXI6cDpALw==", "store": "Bearer t0ken"}
    server.add("beach", BOTH)
    url = server.database.replace("//", "//%C3%BCser:p:%40%2F@")
    async with Couch(url, server.store, user=("no", "body"), token="t0ken") as couch:
        await couch.check()
        assert (await offload(couch)).attachments == 2
    with pytest.raises(Refused, match=r"Name or password is incorrect\.") as refused:
        async with Couch(server.database, server.store, user=("no", "body")) as couch:
            await couch.check()
    assert refused.value.hint == "Give credentials that may read and write in the database."


async def test_only_the_store_is_told_that_requests_came_by_https(
    server: CouchAndStore, couch: Couch
) -> None:
    """A dtfc program sends others on to https."""
    server.add("beach", BOTH)
    await offload(couch)
    for seen_at, headers in zip(server.seen, server.headers, strict=True):
        is_told = headers.get("X-Forwarded-Proto") == "https"
        assert is_told == seen_at.partition(" ")[2].startswith("/store/")


async def test_nobody_is_followed_elsewhere(server: CouchAndStore, couch: Couch) -> None:
    server.add("beach", BOTH)
    document = await couch.document("beach")
    server.fault, server.fault_at = Fault.REDIRECTED, -1
    with pytest.raises(BadRequest, match="sends us on to /elsewhere"):
        await couch.offload(document)
    assert not any("elsewhere" in each for each in server.seen)


async def test_a_url_of_something_else_is_not_taken_for_a_database(server: CouchAndStore) -> None:
    server.add("beach", {})
    async with Couch(f"{server.database}/beach", server.store) as couch:
        with pytest.raises(BadRequest, match="not that of a database"):
            await couch.check()


@pytest.mark.parametrize(
    ("database", "store"),
    [
        ("localhost:5984/photos", "http://h:1/"),
        ("http://h:5984/", "http://h:1/"),
        ("http://h:5984/photos?x=1", "http://h:1/"),
        ("ftp://h/photos", "http://h:1/"),
        ("http://h:x/photos", "http://h:1/"),
        ("http://h/photos", "h:1"),
        ("http://h/photos", "http://user:word@h:1/"),
    ],
)
def test_what_is_no_url_of_either_is_refused(database: str, store: str) -> None:
    with pytest.raises(BadRequest):
        Couch(database, store, token="t0ken")
