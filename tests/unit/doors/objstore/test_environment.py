"""objstore's flags and variables become Tierce's settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tierce.core.errors import BadRequest
from tierce.core.resolve import Given
from tierce.doors.objstore.environment import FLAGS, SOLO, from_objstore_environment

DOC = (Path(__file__).parents[4] / "docs" / "objstore.md").read_text(encoding="utf-8")
SECRET = frozenset({"cluster_secret"})


class Found:
    """What came out: the values, their origins, and the notes."""

    def __init__(self, given: dict[str, Given], notes: list[str], asked: list[list[str]]) -> None:
        self.values = {name: each.value for name, each in given.items()}
        self.origins = {name: each.origin for name, each in given.items()}
        self.notes = notes
        self.asked = asked

    def note(self, word: str) -> str:
        (found,) = [each for each in self.notes if word in each]
        return found


def settings(
    *, elsewhere: frozenset[str] = frozenset(), environ: dict[str, str] | None = None, **flags: Any
) -> Found:
    asked: list[list[str]] = []

    def own_host(hosts: Sequence[str]) -> str:
        asked.append(list(hosts))
        return "10.0.0.5"

    assert flags.keys() <= FLAGS.keys()
    given, notes = from_objstore_environment(flags, environ or {}, elsewhere, own_host)
    return Found(given, notes, asked)


def refusal(**given: Any) -> str:
    with pytest.raises(BadRequest) as refused:
        settings(**given)
    assert refused.value.hint
    return refused.value.message


def test_the_defaults_are_objstores() -> None:
    found = settings()
    assert found.values == {
        "data": "state/",
        "files": "files/",
        "listen": ["objstore=0.0.0.0:10999"],
        "private": "127.0.0.1:11999",
        "anonymous_rights": "read+write",
        "upstream": "s3://00-objstore-test?region=us-east-1",
    }
    assert SOLO in found.notes


@pytest.mark.parametrize("name", FLAGS)
def test_every_flag_is_documented(name: str) -> None:
    flag = FLAGS[name]
    flags = ", ".join(f"`{each}`" for each in flag.flag.split(", "))
    environment = f"`{flag.environment}`" if flag.environment else "-"
    default = f"`{flag.default}`" if flag.default else "-"
    meaning = flag.meaning[0].upper() + flag.meaning[1:]
    assert f"| {flags} | {environment} | {default} | {meaning} |" in DOC


def test_variables_count_where_there_is_no_flag() -> None:
    environ = {
        "APP_STATE_DIR": "/srv/state",
        "APP_FILES_DIR": "/srv/files",
        "NET_PUBLIC_ADDR": "127.0.0.1:1",
        "S3_BUCKET_NAME": "mine",
        "S3_REGION_NAME": " eu-central-1 ",
        "APP_CLUSTER_NODES": "",
    }
    found = settings(environ=environ, state_dir="elsewhere")
    assert found.values["data"] == "elsewhere"
    assert found.values["files"] == "/srv/files"
    assert found.values["listen"] == ["objstore=127.0.0.1:1"]
    assert found.values["upstream"] == "s3://mine?region=eu-central-1"
    assert found.origins["data"] == "flag --state-dir"
    assert found.origins["files"] == "environment APP_FILES_DIR"


def test_tierces_own_settings_count_before_objstores_defaults() -> None:
    elsewhere = frozenset({"data", "listen", "private", "upstream", "tokens", "join"})
    assert settings(elsewhere=elsewhere).values == {}
    found = settings(elsewhere=elsewhere, state_dir="a", public_addr=":1", bucket="mine")
    assert set(found.values) == {"data", "files", "listen", "upstream"}


def test_an_address_without_a_host_is_all_addresses() -> None:
    found = settings(public_addr=":8080", private_addr=":8081")
    assert found.values["listen"] == ["objstore=0.0.0.0:8080"]
    assert found.values["private"] == "127.0.0.1:8081"


@pytest.mark.parametrize("elsewhere", ["tokens", "anonymous_rights"])
def test_rights_that_were_set_are_left_alone(elsewhere: str) -> None:
    found = settings(elsewhere=frozenset({elsewhere}))
    assert "anonymous_rights" not in found.values
    assert not any("everyone" in each for each in found.notes)


def test_an_open_door_is_told_of() -> None:
    assert "0.0.0.0:10999" in settings().note("everyone")
    here = settings(public_addr="127.0.0.1:10999")
    assert not any("everyone" in each for each in here.notes)


# Nodes


@pytest.mark.parametrize(
    ("node", "address"),
    [
        ("localhost:11999", "localhost:11999"),
        ("localhost", "localhost:11999"),
        ("10.0.0.6", "10.0.0.6:11999"),
        ("10.0.0.6:1", "10.0.0.6:1"),
        ("::1", "[::1]:11999"),
        ("[::1]", "[::1]:11999"),
        ("[::1]:5", "[::1]:5"),
        ("http://10.0.0.6:8080", "http://10.0.0.6:8080"),
    ],
)
def test_a_node_without_a_port_has_objstores(node: str, address: str) -> None:
    assert settings(nodes=(node,)).values["join"] == [address]


def test_nodes_are_given_by_repeated_flags_or_with_commas() -> None:
    found = settings(nodes=("a", "b:1,c"))
    assert found.values["join"] == ["a:11999", "b:1", "c:11999"]
    assert "joining to cluster [a:11999 b:1 c:11999]" in found.notes
    assert SOLO not in found.notes
    environ = {"APP_CLUSTER_NODES": "a, b:1,,a:11999"}
    assert settings(environ=environ).values["join"] == ["a:11999", "b:1"]


@pytest.mark.parametrize("nodes", [(), (",",), (" ",)])
def test_no_nodes_are_none(nodes: tuple[str, ...]) -> None:
    found = settings(nodes=nodes)
    assert "join" not in found.values
    assert SOLO in found.notes


# The private address


@pytest.mark.parametrize(
    ("address", "private"),
    [("0.0.0.0:11997", "127.0.0.1:11997"), ("[::]:11997", "[::1]:11997"), (":0", "127.0.0.1:0")],
)
def test_without_a_secret_all_addresses_become_this_machine(address: str, private: str) -> None:
    found = settings(private_addr=address)
    assert found.values["private"] == private
    assert "TIERCE_CLUSTER_SECRET" in found.note(private)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.9.9.9:1"])
def test_a_loopback_address_needs_no_secret(address: str) -> None:
    found = settings(private_addr=address)
    assert found.values["private"] == address
    assert not any("SECRET" in each for each in found.notes)


@pytest.mark.parametrize("address", ["10.0.0.5:11999", "node.example:11999", "[2001:db8::1]:1"])
def test_another_address_needs_one(address: str) -> None:
    assert "--private-addr" in refusal(private_addr=address)
    assert "NET_PRIVATE_ADDR" in refusal(environ={"NET_PRIVATE_ADDR": address})
    assert settings(private_addr=address, elsewhere=SECRET).values["private"] == address


def test_with_a_secret_other_nodes_are_told_this_machines_address() -> None:
    found = settings(elsewhere=SECRET, nodes=("localhost", "10.0.0.6", "bad:port:x"))
    assert found.values["private"] == "0.0.0.0:11999"
    assert found.values["advertise"] == "10.0.0.5:11999"
    assert found.asked == [["10.0.0.6"]]
    assert "TIERCE_ADVERTISE" in found.note("10.0.0.5:11999")


def test_an_address_that_is_named_is_told_as_it_is() -> None:
    assert "advertise" not in settings(elsewhere=SECRET, private_addr="10.0.0.7:1").values
    found = settings(elsewhere=SECRET | {"advertise"})
    assert "advertise" not in found.values
    assert found.asked == []


@pytest.mark.parametrize("address", ["nonsense", "10.0.0.5:99999", "::1:5"])
def test_a_malformed_address_is_left_to_be_refused_by_its_name(address: str) -> None:
    assert settings(private_addr=address).values["private"] == address


# The upstream


@pytest.mark.parametrize(
    ("flags", "url"),
    [
        ({"bucket": "mine"}, "s3://mine?region=us-east-1"),
        ({"region": "eu-west-1"}, "s3://00-objstore-test?region=eu-west-1"),
        (
            {"bucket": "My_old.bucket", "endpoint": "http://10.0.0.9:9000/"},
            "s3://My_old.bucket?region=us-east-1&endpoint=http%3A%2F%2F10.0.0.9%3A9000",
        ),
        ({"upstream": "gcs://mine"}, "gcs://mine"),
        ({"no_upstream": True}, ""),
    ],
)
def test_the_upstream_is_a_url(flags: dict[str, Any], url: str) -> None:
    assert settings(**flags).values["upstream"] == url


def test_flags_go_before_variables_that_name_a_bucket() -> None:
    environ = {"S3_BUCKET_NAME": "mine", "S3_ENDPOINT": "http://10.0.0.9"}
    found = settings(environ=environ, upstream="gcs://other")
    assert found.values["upstream"] == "gcs://other"
    assert "S3_BUCKET_NAME and S3_ENDPOINT" in found.note("not used")
    assert settings(environ=environ, no_upstream=True).values["upstream"] == ""


def test_a_bucket_that_nobody_named_is_told_of() -> None:
    assert "00-objstore-test" in settings().note("bucket")
    for flags in ({"bucket": "mine"}, {"no_upstream": True}, {"upstream": "gcs://x"}):
        assert not any("bucket" in each for each in settings(**flags).notes)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"bucket": "a/b"}, "--bucket"),
        ({"bucket": "s3://mine"}, "--bucket"),
        ({"bucket": "mine?endpoint=http://evil"}, "--bucket"),
        ({"region": "eu west"}, "--region"),
        ({"endpoint": "10.0.0.9:9000"}, "--endpoint"),
        ({"environ": {"S3_REGION_NAME": "a&b"}}, "S3_REGION_NAME"),
        ({"bucket": "mine", "upstream": "gcs://x"}, "--upstream"),
        ({"region": "x", "no_upstream": True}, "--no-upstream"),
        ({"upstream": "gcs://x", "no_upstream": True}, "--no-upstream"),
        ({"debug": "yes"}, "--debug"),
        ({"environ": {"APP_DEBUG_LEVEL": "-1"}}, "APP_DEBUG_LEVEL"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(given: dict[str, Any], named: str) -> None:
    assert named in refusal(**given)


# Debugging, the tag


def test_a_debug_level_logs_requests() -> None:
    found = settings(debug="1")
    assert (found.values["log_level"], found.values["access_log"]) == ("debug", True)
    assert "access_log" not in settings(debug="0").values
    assert settings(environ={"APP_DEBUG_LEVEL": "1"}).values["access_log"] is True


def test_the_debug_address_needs_a_debug_level() -> None:
    found = settings(debug="1", debug_addr="127.0.0.1:8080")
    assert found.values["objstore_debug"] == "127.0.0.1:8080"
    found = settings(debug_addr="127.0.0.1:8080")
    assert "objstore_debug" not in found.values
    assert "-d 1" in found.note("--debug-addr")


def test_the_debug_address_is_of_this_machine() -> None:
    found = settings(debug="1", debug_addr=":8080")
    assert found.values["objstore_debug"] == "127.0.0.1:8080"
    assert "127.0.0.1:8080" in found.note("debug address")
    assert "--debug-addr" in refusal(debug="1", debug_addr="10.0.0.5:8080")
    assert settings(debug="1", debug_addr="x").values["objstore_debug"] == "x"


@pytest.mark.parametrize(("tag", "setting"), [("default", ""), ("blue", "blue")])
def test_the_default_tag_is_none(tag: str, setting: str) -> None:
    assert settings(tag=tag).values["cluster_tag"] == setting
    assert "cluster_tag" not in settings().values
