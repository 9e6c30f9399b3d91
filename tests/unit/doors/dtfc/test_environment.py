"""The flags of a dtfc node become settings, and the operator is told what is done otherwise."""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import pytest

from tierce.core.errors import BadRequest
from tierce.core.resolve import Given, resolve
from tierce.core.rights import Right
from tierce.core.settings import Settings
from tierce.doors.dtfc.environment import FLAGS, NO_PEERS, from_dtfc_flags

FILES = {"me.txt": "\n  \n http://10.0.0.1:8080/ \nhttp://other/\n", "blank": "\n \n"}


def read_text(path: Path) -> str:
    if str(path) not in FILES:
        raise FileNotFoundError(2, "No such file or directory")
    if str(path) == "binary":
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no")
    return FILES[str(path)]


def settings_of(**flags: str) -> tuple[Settings, list[str]]:
    found, notes = from_dtfc_flags({"basedir": "d", **flags}, set(), read_text)
    return resolve(found, {}, {}, "", Path.read_text).settings, notes


def given(elsewhere: Set[str] = frozenset(), /, **flags: str) -> Mapping[str, Given]:
    return from_dtfc_flags({"basedir": "d", **flags}, elsewhere, read_text)[0]


def test_without_more_than_a_directory_the_defaults_are_dtfcs() -> None:
    found, notes = settings_of()
    assert [str(each) for each in found.listen] == ["dtfc=0.0.0.0:8080"]
    assert found.data == Path("d")
    assert found.private.address == "127.0.0.1:0"
    assert found.anonymous_rights == frozenset({Right.READ, Right.WRITE})
    assert (found.dtfc_me, found.dtfc_peer_list, found.dtfc_deny) == ("", None, "")
    assert len(notes) == 2
    assert notes[0].startswith("everyone who reaches 0.0.0.0:8080 may read, put and delete")
    assert notes[1] == NO_PEERS


def test_every_flag_has_its_setting() -> None:
    found, notes = settings_of(
        port="8001", deny="/x/deny/", me="http://10.0.0.1:8001/", peerlist="peers",
        provider="local", log="file", melist="not read",
    )  # fmt: skip
    assert [str(each) for each in found.listen] == ["dtfc=0.0.0.0:8001"]
    assert found.dtfc_deny == "/x/deny/"
    assert found.dtfc_me.rstrip("/") == "http://10.0.0.1:8001"
    assert found.dtfc_peer_list == Path("peers")
    assert len(notes) == 1


def test_a_prefix_of_deny_files_needs_no_slash() -> None:
    assert settings_of(deny="/x/deny")[0].dtfc_deny == "/x/deny"


def test_empty_flags_count_as_not_given() -> None:
    assert given(**dict.fromkeys(set(FLAGS) - {"basedir"}, "")) == given()


def test_the_own_url_may_stand_in_a_file() -> None:
    found = given(melist="me.txt", peerlist="peers")["dtfc_me"]
    assert (found.value, found.origin) == ("http://10.0.0.1:8080/", "the file me.txt")


def test_a_flag_with_the_own_url_counts_before_the_file() -> None:
    assert given(me="http://a/", melist="me.txt")["dtfc_me"].value == "http://a/"


def test_a_temporary_directory_is_not_used_and_that_is_said() -> None:
    assert any("--temp is not used" in each for each in settings_of(temp="/tmp/x")[1])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"basedir": ""}, "the base directory is not set"),
        ({"basedir": "  "}, "the base directory is not set"),
        ({"provider": "s3"}, "flag --provider: 's3' is not known"),
        ({"peerlist": "peers"}, "the node's own URL is not set"),
        ({"peerlist": "peers", "melist": "blank"}, "the node's own URL is not set"),
        ({"peerlist": "peers", "melist": "gone"}, "flag --melist: 'gone' can't be read: No such file"),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_refused(flags: dict[str, str], message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        given(**flags)
    assert caught.value.hint


def test_a_file_that_is_no_text_is_refused() -> None:
    def no_text(path: Path) -> str:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no")

    with pytest.raises(BadRequest, match="it is no text"):
        from_dtfc_flags({"basedir": "d", "melist": "x"}, set(), no_text)


@pytest.mark.parametrize(
    ("name", "value", "origin"),
    [("port", "many", "flag --port"), ("me", "nonsense", "flag --me")],
)
def test_a_bad_value_is_refused_by_the_name_of_its_flag(name: str, value: str, origin: str) -> None:
    flags: dict[str, Any] = {name: value}
    with pytest.raises(BadRequest, match=origin):
        settings_of(**flags)


def test_what_is_set_elsewhere_counts_before_the_defaults() -> None:
    found, notes = from_dtfc_flags(
        {}, {"data", "listen", "private", "dtfc_peers", "tokens"}, read_text
    )
    assert (found, notes) == ({}, [])


def test_a_flag_counts_before_what_is_set_elsewhere() -> None:
    found = given(frozenset({"listen", "data"}), port="8001")
    assert found["listen"].value == ["dtfc=0.0.0.0:8001"]
    assert found["data"].value == "d"


@pytest.mark.parametrize("name", ["tokens", "anonymous_rights"])
def test_rights_that_are_set_are_left_alone(name: str) -> None:
    found, notes = from_dtfc_flags({"basedir": "d"}, {name}, read_text)
    assert "anonymous_rights" not in found
    assert notes == [NO_PEERS]


def test_the_own_url_may_be_set_elsewhere() -> None:
    assert "dtfc_me" not in given(frozenset({"dtfc_me"}), peerlist="peers")
