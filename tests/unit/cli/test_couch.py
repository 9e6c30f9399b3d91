"""``tierce couch``: what it says, and its exit codes."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tierce.cli import main as main_module
from tierce.cli.couch import FAILURES_IN_A_ROW
from tierce.cli.main import main
from tierce.cli.progress import Meter
from tierce.client import couch as couch_module
from tierce.testing.couch import Attachment, CouchAndStore, Fault

PHOTO = random.Random(1).randbytes(5000)
TEXT = b"It was a fine day."


class Ran(NamedTuple):
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> str:
        return self.out.splitlines()[-1]


class Tool:
    """``tierce couch`` with a database and a store."""

    def __init__(self, server: CouchAndStore, capture: pytest.CaptureFixture[str]) -> None:
        self.server = server
        self._capture = capture

    def run(self, word: str, *options: str) -> Ran:
        return self.run_bare(word, "--db", self.server.database, *options)

    def run_bare(self, *words: str) -> Ran:
        self._capture.readouterr()
        code = main(["couch", *words])
        return Ran(code, *self._capture.readouterr())


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Tool]:
    for variable in ("TIERCE_TOKEN", "COUCHDB_USER", "COUCHDB_PASSWORD"):
        monkeypatch.delenv(variable, raising=False)
    with CouchAndStore().serving_in_thread() as server:
        monkeypatch.setenv("TIERCE_DTFC_URL", server.store)
        yield Tool(server, capsys)


def fill(server: CouchAndStore, count: int) -> None:
    for number in range(count):
        server.add(f"d{number:03}", {"a.jpg": PHOTO, "b.txt": TEXT})


def test_it_says_what_it_moved(tool: Tool) -> None:
    fill(tool.server, 12)
    ran = tool.run("offload")
    assert (ran.code, ran.err) == (0, "")
    assert ran.summary == "24 attachments (60216 bytes) of 12 documents moved into the store"
    line = "2 attachments (5018 bytes)"
    assert sorted(ran.out.splitlines()[:-1]) == [f"d{n:03}: {line}" for n in range(12)]
    assert tool.run("offload").out == (
        "0 attachments (0 bytes) of 0 documents moved into the store\n"
    )
    ran = tool.run("restore", "--doc", "d001")
    assert ran.summary == "2 attachments (5018 bytes) of 1 document made again"
    assert tool.run("restore").summary == "22 attachments (55198 bytes) of 11 documents made again"
    assert all(each.attachments["a.jpg"].data == PHOTO for each in tool.server.documents.values())


def test_small_ones_may_stay(tool: Tool) -> None:
    fill(tool.server, 1)
    assert tool.run("offload", "--min-size", "1KiB").summary.startswith("1 attachment (5000 bytes)")
    assert tool.server.documents["d000"].attachments.keys() == {"b.txt"}


def test_only_the_documents_named(tool: Tool) -> None:
    fill(tool.server, 4)
    ran = tool.run("offload", "--doc", "d002", "--doc", "none", "--doc", "d002")
    assert ran.code == 1
    assert "tierce: none: the database, document 'none': missing\n" in ran.err
    assert ran.summary.endswith("of 1 document moved into the store, 1 document failed")
    assert [name for name, each in tool.server.documents.items() if not each.attachments] == [
        "d002"
    ]


def test_one_that_is_deleted_meanwhile_is_no_failure(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(couch_module, "PAGE_BYTES", 100)
    fill(tool.server, 3)
    tool.server.fault, tool.server.fault_at = Fault.DELETED, 4  # after the listing
    ran = tool.run("offload")
    assert (ran.code, ran.err) == (0, "")


def test_what_is_in_the_way_of_a_restored_one_is_said(tool: Tool) -> None:
    fill(tool.server, 1)
    tool.run("offload")
    tool.server.documents["d000"].attachments["b.txt"] = Attachment(b"other", "text/plain", 2)
    ran = tool.run("restore")
    assert ran.code == 1
    assert "d000: there is another attachment b.txt" in ran.err
    assert ran.summary == "1 attachment (5000 bytes) of 1 document made again, 1 left"
    assert tool.run("restore").summary == (
        "0 attachments (0 bytes) of 0 documents made again, 1 left"
    )
    ran = tool.run("offload")
    assert ran.code == 0
    assert "d000: an earlier file is named b.txt@" in ran.err


def test_a_document_that_fails_keeps_no_other_from_its_turn(tool: Tool) -> None:
    fill(tool.server, 10)
    tool.server.documents["d003"].fields["dtfc"] = "mine"
    ran = tool.run("offload")
    assert ran.code == 1
    assert ran.err == (
        "tierce: d003: there is something else in the document's field dtfc."
        " Rename that field in the document.\n"
    )
    assert ran.summary.endswith("of 9 documents moved into the store, 1 document failed")


def test_it_stops_where_all_fails(tool: Tool) -> None:
    fill(tool.server, FAILURES_IN_A_ROW + 30)
    tool.server.acknowledged = {}
    ran = tool.run("offload")
    assert ran.code == 5
    assert FAILURES_IN_A_ROW <= ran.err.count("does not say that it has") < FAILURES_IN_A_ROW + 8
    assert "documents in a row failed\n" in ran.err
    assert ran.out.startswith("0 attachments")


def test_what_was_done_before_the_listing_broke_off_is_said(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(couch_module, "PAGE_DOCUMENTS", 1)
    fill(tool.server, 3)
    tool.server.documents["d002"].fields["_rev"] = 5
    ran = tool.run("offload")
    assert ran.code == 5
    assert ran.err.startswith("tierce: the database does not answer as CouchDB does\n")
    assert ran.summary == "2 attachments (5018 bytes) of 1 document moved into the store"
    assert not tool.server.documents["d000"].attachments


@pytest.mark.parametrize("count", [1, 30])
def test_it_ends_quietly_when_nobody_reads_its_output(
    tool: Tool, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    def gone(meter: Meter, line: str) -> None:
        raise BrokenPipeError(line)

    monkeypatch.setattr(Meter, "say", gone)
    monkeypatch.setattr(main_module, "_drop_output", lambda: None)  # that is of this process
    fill(tool.server, count)
    ran = tool.run("offload")
    assert (ran.code, ran.out, ran.err) == (141, "", "")


def test_credentials_come_from_the_environment(
    tool: Tool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool.server.authorization = {"photos": "Basic YWRhOnB3", "store": "Bearer t0ken"}
    fill(tool.server, 1)
    ran = tool.run("offload")
    assert (ran.code, ran.err.splitlines()) == (
        4,
        [
            "tierce: the database: Name or password is incorrect.",
            "  Give credentials that may read and write in the database.",
        ],
    )
    monkeypatch.setenv("COUCHDB_USER", "ada")
    ran = tool.run("offload")
    assert (ran.code, "only one of COUCHDB_USER and" in ran.err) == (2, True)
    monkeypatch.setenv("COUCHDB_PASSWORD", "pw")
    (tmp_path / "token").write_text("t0ken\n")
    assert tool.run("offload", "--token-file", str(tmp_path / "token")).code == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--db", "DB/../none"], 3, "tierce: the database: Database does not exist."),
        (["--db", "nowhere"], 2, "tierce: that is not the URL of the database"),
        (["--db", "http://127.0.0.1:1/photos"], 5, "Connection refused"),
        (["--db", "DB", "--store", "http://127.0.0.1:1/"], 5, "Connection refused"),
        (["--db", "DB", "--store", "DB"], 3, "tierce: the store, health.html: missing"),
    ],
)
def test_what_keeps_it_from_starting_is_said_at_once(
    tool: Tool, options: list[str], code: int, said: str
) -> None:
    ran = tool.run_bare("offload", *[each.replace("DB", tool.server.database) for each in options])
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
