"""SOS's lists of blob servers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.client.sos_config import (
    FLAT_GROUP,
    Listed,
    as_settings,
    joined,
    ordered,
    parse_file,
    parse_list,
    parse_settings,
)
from tierce.core.errors import BadRequest


def flat(*urls: str) -> Listed:
    return Listed({FLAT_GROUP: urls})


def test_a_server_a_line() -> None:
    text = "http://localhost:4040\nhttp://localhost:4041\n"
    assert parse_file(text, "f") == flat("http://localhost:4040", "http://localhost:4041")


@pytest.mark.parametrize(
    ("line", "url"),
    [
        ("server1.storage.lan:2001", "http://server1.storage.lan:2001"),
        ("  http://a:1/  \r", "http://a:1"),
        ("http://a:1///", "http://a:1"),
        ("HTTP://Host:1", "http://host:1"),
        ("https://a/base/", "https://a/base"),
        ("http://a:1  # the old one", "http://a:1"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("[::1]:3000", "http://[::1]:3000"),
        ("a", "http://a"),
    ],
)
def test_a_line_is_made_an_address(line: str, url: str) -> None:
    assert parse_file(f"{line}\n", "f") == flat(url)


@pytest.mark.parametrize("text", ["", "\n\n  \n", "# http://a:1\n  # b\n; c\n"])
def test_blank_lines_and_comments_are_no_servers(text: str) -> None:
    assert parse_file(text, "f") == Listed({})


@pytest.mark.parametrize(
    "line",
    ["http://a b", "http://", "ftp://a:1", "http://u:p@a:1", "http://a:x", "http://a:99999",
     "http://a/?q", "http://a/#f", "http://ä", "a:1,b:2", "http://a:0"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(BadRequest, match="f, line 2"):
        parse_file(f"http://a:1\n{line}\n", "f")


def test_groups_keep_their_order() -> None:
    text = "[two]\n-: http://c:1\n-: http://d:1\n\n[one]\n- : a:1\n-:http://b:1/\n"
    groups = {"two": ("http://c:1", "http://d:1"), "one": ("http://a:1", "http://b:1")}
    assert parse_file(text, "f") == Listed(groups)
    assert list(parse_file(text, "f").groups) == ["two", "one"]


@pytest.mark.parametrize(
    "line", ["http://a:1", "a:1", "name = http://a:1", "name: a:1", "-=a:1", "-: http://a:1 ; x"]
)
def test_a_server_of_a_group_may_be_written_in_several_ways(line: str) -> None:
    assert parse_file(f"[ g ]\n{line}\n", "f") == Listed({"g": ("http://a:1",)})


def test_what_is_in_no_group_is_left_out_and_said() -> None:
    found = parse_file("http://a:1\n[g]\n-: http://b:1\n[DEFAULT]\n-: http://c:1\n", "f")
    assert found.groups == {"g": ("http://b:1",)}
    assert [note.partition(": ")[0] for note in found.notes] == ["f, line 1", "f, line 5"]


def test_doubles_are_used_once_and_said() -> None:
    found = parse_file("http://a:1\nhttp://b:1\na:1/\n", "f")
    assert found.groups == {FLAT_GROUP: ("http://a:1", "http://b:1")}
    assert found.notes == ("http://a:1 is listed twice, and is used once.",)


def test_a_server_may_be_in_two_groups() -> None:
    found = parse_file("[x]\na:1\nb:1\n[y]\na:1\nc:1\n", "f")
    assert found.notes == ()
    assert ordered(found.groups) == ["http://a:1", "http://b:1", "http://c:1"]


def test_files_are_joined() -> None:
    first = parse_file("http://a:1\n", "f")
    second = parse_file("http://b:1\nhttp://a:1\n", "g")
    third = parse_file("[h]\nhttp://c:1\n", "h")
    found = joined([first, second, third])
    assert found.groups == {FLAT_GROUP: ("http://a:1", "http://b:1"), "h": ("http://c:1",)}
    assert len(found.notes) == 1


def test_a_command_line_has_commas() -> None:
    assert parse_list("http://a:1, b:2,,") == flat("http://a:1", "http://b:2")


def test_settings_are_read_back() -> None:
    groups = {"x": ("http://a:1",), "y z": ("http://b:1/p", "https://c"), FLAT_GROUP: ("http://d",)}
    assert parse_settings(as_settings(groups)) == Listed(groups)
    assert parse_settings(["a:1", "g=b:1", "http://c/x=y"]) == Listed(
        {FLAT_GROUP: ("http://a:1", "http://c/x=y"), "g": ("http://b:1",)}
    )


def test_the_order_of_the_wire_sheet() -> None:
    groups = {"1": ("a", "b"), "2": ("c", "d"), "3": ("e", "f", "g")}
    assert ordered(groups) == list("acebdfg")


@given(st.lists(st.lists(st.integers(0, 30), unique=True), max_size=6))
def test_the_order_is_by_place_then_by_group(members: list[list[int]]) -> None:
    groups = {str(number): [str(each) for each in each_group]
              for number, each_group in enumerate(members)}  # fmt: skip
    places = sorted(
        (place, number, url)
        for number, urls in enumerate(groups.values())
        for place, url in enumerate(urls)
    )
    naive: list[str] = []
    for _, _, url in places:
        if url not in naive:
            naive.append(url)
    assert ordered(groups) == naive
