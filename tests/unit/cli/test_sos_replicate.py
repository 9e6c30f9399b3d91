"""``tierce sos replicate``, against both generations of blob servers."""

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tierce.cli.main import main
from tierce.testing.sos_servers import GO, PERL, Faults, SosServer, serving_sos_in_thread

DATA = b"hello sos\n"
LARGE = random.Random(1).randbytes(400_000)


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


class Ran(NamedTuple):
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> str:
        return self.out.splitlines()[-1]


class Tool:
    """``tierce sos replicate`` with a home of its own."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self._capture = capture

    def run(self, servers: Sequence[SosServer], *options: str) -> Ran:
        """Run it on a flat list of servers."""
        return self.run_on("".join(f"{each.url}\n" for each in servers), *options)

    def run_on(self, text: str, *options: str) -> Ran:
        """Run it with this text in its file."""
        file = self.home / "sos.conf"
        file.write_text(text)
        return self.run_bare("--config", str(file), *options)

    def run_bare(self, *options: str) -> Ran:
        """Run it with nothing but these options."""
        self._capture.readouterr()
        try:
            code = main(["sos", "replicate", *options])
        except SystemExit as ending:
            code = int(str(ending.code))
        return Ran(code, *self._capture.readouterr())


@pytest.fixture
def tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Tool:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Tool(tmp_path, capsys)


def made(dialects: Sequence[str], *objects: Sequence[bytes]) -> list[SosServer]:
    """Servers of these kinds, each with its objects under their SHA-1."""
    servers = [SosServer(each) for each in dialects]
    for server, datas in zip(servers, objects, strict=False):
        server.objects = {sha1(data): data for data in datas}
    return servers


def copies(servers: Sequence[SosServer], data: bytes) -> int:
    """How many servers have exactly these bytes under their SHA-1."""
    return sum(each.objects.get(sha1(data)) == data for each in servers)


def test_it_says_what_the_older_one_says(tool: Tool) -> None:
    servers = made([PERL, PERL], [DATA], [b"other"])
    with serving_sos_in_thread(*servers):
        first, second = sorted(each.url for each in servers)
        ran = tool.run(servers, "--verbose")
    holders = {sha1(data): url for url, data in zip((servers[0].url, servers[1].url),
                                                     (DATA, b"other"), strict=True)}  # fmt: skip
    here, there = (next(i for i, url in holders.items() if url == each) for each in (first, second))
    lines = [
        f"Downloading contents of blob-server {first}",
        f"Downloading contents of blob-server {second}",
        "",
        f"Objects stored on blob-server {first}",
        f"\t{here}",
        "",
        f"Objects stored on blob-server {second}",
        f"\t{there}",
        "",
        "",
        "Beginning replication scan.",
    ]
    assert ran.out.splitlines()[: len(lines)] == lines
    for sos_id, source in holders.items():
        target = second if source == first else first
        assert (
            f"1 copies of {sos_id} required: 2\n"
            f"Attempting to replicate {sos_id}\n"
            f"\tFound on {source}\n"
            f"\t{target} is a possible target for replication\n"
            f"\tReplicating to {target}\n"
            "\tReplication successful\n"
        ) in ran.out
    ending = "\n\nReplication scan complete.\n2 objects, 2 copies made, 0 failed\n"
    assert ran.out.endswith(ending)
    assert (ran.code, ran.err) == (0, "")
    assert [copies(servers, data) for data in (DATA, b"other")] == [2, 2]


def test_without_verbose_it_tells_only_the_copies(tool: Tool) -> None:
    servers = made([PERL, GO], [DATA], [])
    with serving_sos_in_thread(*servers):
        ran = tool.run(servers)
    assert ran.out == (
        f"\tFound on {servers[0].url}\n"
        f"\t{servers[1].url} is a possible target for replication\n"
        "\tReplication successful\n"
        "1 objects, 1 copies made, 0 failed\n"
    )


def test_a_second_run_copies_nothing(tool: Tool) -> None:
    servers = made([PERL, GO], [DATA, LARGE], [])
    with serving_sos_in_thread(*servers):
        assert tool.run(servers).summary == "2 objects, 2 copies made, 0 failed"
        for each in servers:
            each.seen.clear()
        ran = tool.run(servers)
    assert (ran.code, ran.out) == (0, "2 objects, 0 copies made, 0 failed\n")
    assert [each.methods() for each in servers] == [[], []]


@pytest.mark.parametrize("dialects", [[PERL] * 4, [GO] * 4, [PERL, GO, GO, PERL]],
                         ids=["perl", "go", "mixed"])  # fmt: skip
@pytest.mark.parametrize("wanted", [1, 3, 4])
def test_every_object_gets_all_copies_that_it_lacks(
    tool: Tool, dialects: Sequence[str], wanted: int
) -> None:
    luck = random.Random(wanted)
    datas = [luck.randbytes(size) for size in (0, 1, 100, 70_000, 400_000)] + [b"%d" % n
             for n in range(30)]  # fmt: skip
    servers = made(dialects)
    for data in datas:
        for each in luck.sample(servers, luck.randint(1, 4)):
            each.objects[sha1(data)] = data
    before = [copies(servers, data) for data in datas]
    with serving_sos_in_thread(*servers):
        ran = tool.run(servers, f"--min-copies={wanted}")
    assert [copies(servers, data) for data in datas] == [max(wanted, count) for count in before]
    lacking = sum(max(0, wanted - count) for count in before)
    assert ran.summary == f"35 objects, {lacking} copies made, 0 failed"
    assert (ran.code, ran.err) == (0, "")


def test_more_copies_than_servers_is_impossible(tool: Tool) -> None:
    servers = made([PERL, GO], [DATA], [])
    with serving_sos_in_thread(*servers):
        ran = tool.run(servers, "--min-copies", "3")
    assert ran.code == 1
    assert ran.out == (
        "You've asked for an impossible number of replicated-copies:\n\n"
        "* You have 2 blob-servers available.\n"
        "* You've asked for 3.\n"
    )
    assert copies(servers, DATA) == 1


def test_a_server_that_is_down_is_told_and_the_rest_is_done(tool: Tool) -> None:
    servers, gone = made([PERL, GO], [DATA], []), SosServer(GO)
    with serving_sos_in_thread(gone):
        pass
    with serving_sos_in_thread(*servers):
        ran = tool.run([*servers, gone])
    assert ran.code == 1
    assert ran.err.startswith(f"Server offline {gone.url}: can't connect")
    assert ran.summary == "1 objects, 1 copies made, 0 failed"
    assert copies(servers, DATA) == 2


def test_no_server_that_answers_is_an_error(tool: Tool) -> None:
    gone = SosServer(GO)
    with serving_sos_in_thread(gone):
        pass
    ran = tool.run([gone])
    assert ran.code == 5
    assert ran.out.endswith("\n\n~/.sos.conf\n/etc/sos.conf\n")
    assert gone.url in ran.err


@pytest.mark.skipif(Path("/etc/sos.conf").exists(), reason="this machine has servers")
def test_without_servers_the_files_are_named(tool: Tool) -> None:
    ran = tool.run_bare()
    assert ran.code == 2
    assert ran.out == (
        "In order to rebalance/replicate you must define a list of your object-servers.\n\n"
        "The list of servers should be placed in either:\n\n~/.sos.conf\n/etc/sos.conf\n"
    )


@pytest.mark.skipif(Path("/etc/sos.conf").exists(), reason="this machine has servers")
def test_the_file_at_home_is_read(tool: Tool) -> None:
    servers = made([PERL, GO], [DATA], [])
    with serving_sos_in_thread(*servers):
        (tool.home / ".sos.conf").write_text("".join(f"{each.url}/\n" for each in servers))
        assert tool.run_bare().code == 0
    assert copies(servers, DATA) == 2


def test_servers_on_the_command_line_come_in_place_of_the_files(tool: Tool) -> None:
    servers = made([PERL, GO], [DATA], [])
    (tool.home / ".sos.conf").write_text("http://127.0.0.1:1\n")
    with serving_sos_in_thread(*servers):
        ran = tool.run_bare("--blob-server", ",".join(each.url for each in servers))
    assert (ran.code, ran.err) == (0, "")
    assert copies(servers, DATA) == 2


@pytest.mark.parametrize("fault", [Faults(refuses_lists=True), Faults(cuts_lists=True)],
                         ids=["refused", "cut"])  # fmt: skip
def test_a_list_that_cant_be_read_is_not_taken_for_a_short_one(tool: Tool, fault: Faults) -> None:
    servers = made([PERL, GO, PERL], [DATA], [], [DATA, b"other"])
    servers[2].faults = fault
    with serving_sos_in_thread(*servers):
        ran = tool.run(servers)
    assert ran.code == 1
    assert f"Failed to download contents from server {servers[2].url}: " in ran.err
    assert servers[2].methods() == []
    assert ran.summary == "1 objects, 1 copies made, 0 failed"


def test_too_few_lists_make_it_impossible(tool: Tool) -> None:
    servers = made([PERL, GO], [DATA], [])
    servers[1].faults.refuses_lists = True
    with serving_sos_in_thread(*servers):
        ran = tool.run(servers)
    assert ran.code == 1
    assert "* You have 1 blob-servers available.\n* You've asked for 2.\n" in ran.out
    assert servers[1].methods() == []


def test_nothing_crosses_groups(tool: Tool) -> None:
    servers = made([PERL, GO, PERL, GO, PERL], [DATA], [], [b"two"], [], [b"three"])
    with serving_sos_in_thread(*servers):
        urls = [each.url for each in servers]
        text = "".join(
            f"[{name}]\n" + "".join(f"-: {url}\n" for url in part)
            for name, part in (("a", urls[:2]), ("b", urls[2:4]), ("c", urls[4:]))
        )
        ran = tool.run_on(text, "--verbose")
    # The third group has too few servers: that is told, and the others are done.
    assert ran.code == 1
    assert "* You have 1 blob-servers available." in ran.out
    assert "Syncing group: b\n" in ran.out
    assert ran.summary == "2 objects, 2 copies made, 0 failed"
    assert [sorted(each.objects.values()) for each in servers] == [
        [DATA], [DATA], [b"two"], [b"two"], [b"three"]
    ]  # fmt: skip


SOURCE_FAULTS = {
    "wrong bytes": Faults(gives_wrong_bytes=True),
    "kept less": Faults(truncates_to=100_000),
    "dies midway": Faults(dies_after_sending=100_000),
    "dies midway, unseen": Faults(dies_after_sending=100_000, is_cut_unseen=True),
    "500": Faults(answers_500=True),
}


@pytest.mark.parametrize("fault", SOURCE_FAULTS.values(), ids=SOURCE_FAULTS.keys())
@pytest.mark.parametrize("dialect", [PERL, GO])
def test_a_source_that_fails_spoils_no_other_server(
    tool: Tool, dialect: str, fault: Faults
) -> None:
    servers = made([dialect, PERL, GO], [LARGE], [], [])
    servers[0].faults = fault
    with serving_sos_in_thread(*servers):
        ran = tool.run(servers)
        assert ran.code == 1
        assert ran.summary == "1 objects, 0 copies made, 1 failed"
        assert f"\tFAILED {servers[0].url}: " in ran.out
        assert "1 copies are still lacking" in ran.err
        assert "POST" not in servers[1].methods() + servers[2].methods()
        servers[0].faults = Faults()
        assert tool.run(servers).code == 0
    assert copies(servers, LARGE) == 2


@pytest.mark.parametrize("fault", SOURCE_FAULTS.values(), ids=SOURCE_FAULTS.keys())
def test_another_holder_is_the_source_then(tool: Tool, fault: Faults) -> None:
    servers = made([PERL, PERL, GO, PERL], [LARGE], [LARGE], [], [])
    with serving_sos_in_thread(*servers):
        by_url = sorted(servers, key=lambda each: each.url)
        for each in by_url:
            each.objects = {sha1(LARGE): LARGE} if each in by_url[:2] else {}
        by_url[0].faults = fault
        ran = tool.run(servers, "--min-copies=3")
    is_bad = fault.gives_wrong_bytes or fault.truncates_to or fault.is_cut_unseen
    # A copy that was found bad is no copy.
    assert ran.summary == f"1 objects, {2 if is_bad else 1} copies made, 0 failed"
    assert [copies([each], LARGE) for each in by_url[2:]].count(1) == (2 if is_bad else 1)


TARGET_FAULTS = {
    "dies at once": Faults(dies_after_taking=0),
    "dies midway": Faults(dies_after_taking=200_000),
    "full": Faults(is_full=True),
    "full before the end": Faults(is_full=True, answers_early=True),
    "says OK without keeping it": Faults(loses_uploads=True),
    "says OK and has nothing": Faults(claims_size=len(LARGE)),
    "says it kept less": Faults(claims_size=5),
    "500": Faults(answers_500=True),
}


@pytest.mark.parametrize("fault", TARGET_FAULTS.values(), ids=TARGET_FAULTS.keys())
@pytest.mark.parametrize("dialect", [PERL, GO])
def test_a_target_that_fails_is_replaced_by_another(
    tool: Tool, dialect: str, fault: Faults
) -> None:
    servers = made([PERL, dialect, dialect, GO], [LARGE], [], [], [])
    servers[1].faults = servers[2].faults = fault
    with serving_sos_in_thread(*servers):
        ran = tool.run(servers)
        assert (ran.code, ran.summary) == (0, "1 objects, 1 copies made, 0 failed")
        assert copies(servers, LARGE) == 2
        again = tool.run(servers, "--min-copies=3")
        assert (again.code, again.summary) == (1, "1 objects, 0 copies made, 1 failed")
        servers[1].faults = servers[2].faults = Faults()
        assert tool.run(servers, "--min-copies=3").code == 0
    assert copies(servers, LARGE) == 3


def test_metadata_is_carried_along(tool: Tool) -> None:
    servers = made([GO, GO], [DATA], [])
    servers[0].metadata[sha1(DATA)] = {"X-Mime-Type": "text/plain"}
    with serving_sos_in_thread(*servers):
        assert tool.run(servers).code == 0
    assert servers[1].metadata == servers[0].metadata


def test_other_ids_are_copied_where_they_can_be(tool: Tool) -> None:
    servers = made([PERL, PERL, GO])
    servers[0].objects = {"any-Name_1.txt": DATA, "bad\nname": b"x", "0" * 40 + "x": b"y"}
    with serving_sos_in_thread(*servers):
        ran = tool.run(servers[:2])
        assert (ran.code, ran.summary) == (1, "3 objects, 2 copies made, 1 failed")
        assert servers[1].objects == {"any-Name_1.txt": DATA, "0" * 40 + "x": b"y"}
        assert "'bad\\nname' is not an id" in ran.out
        ran = tool.run([servers[0], servers[2]])
        assert (ran.code, ran.summary) == (1, "3 objects, 1 copies made, 2 failed")
    assert "alphanumeric IDs only" in ran.out
    assert servers[2].objects == {"0" * 40 + "x": b"y"}


def test_lists_without_order_and_with_doubles_are_understood(tool: Tool) -> None:
    datas = [b"%d" % number for number in range(9)]
    servers = made([PERL, GO], datas, datas[:4])
    listed = [sha1(data) for data in datas]
    random.Random(3).shuffle(listed)
    servers[0].listed = listed + listed[:5]
    with serving_sos_in_thread(*servers):
        ran = tool.run(servers)
    assert ran.summary == "9 objects, 5 copies made, 0 failed"
    assert [copies(servers, data) for data in datas] == [2] * 9


def test_an_id_that_is_listed_and_not_there_is_no_copy(tool: Tool) -> None:
    servers = made([PERL, GO, PERL], [DATA], [], [])
    with serving_sos_in_thread(*servers):
        servers[1].listed = [sha1(DATA)]
        ran = tool.run(servers, "--min-copies=3")
        assert ran.summary.startswith("1 objects, 1 copies made, ")
        servers[0].objects.clear()
        servers[2].objects.clear()
        servers[1].listed = [sha1(b"nowhere")]
        ran = tool.run(servers)
    assert (ran.code, ran.summary) == (1, "1 objects, 0 copies made, 1 failed")


@pytest.mark.parametrize("options", [["--bogus"], ["--min-copies=0"], ["--min-copies=x"]])
def test_wrong_options_are_refused(tool: Tool, options: list[str]) -> None:
    assert tool.run_bare(*options).code == 2


def test_help_shows_the_options(tool: Tool) -> None:
    ran = tool.run_bare("--help")
    assert ran.code == 0
    assert all(flag in ran.out for flag in ("--verbose", "--min-copies", "--blob-server"))
