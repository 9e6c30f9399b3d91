"""What is read of addresses, keys and heartbeats."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tierce.core.listen import Listen
from tierce.core.settings import Settings
from tierce.doors.cask import render
from tierce.doors.cask.forms import NotJson, parse_heartbeat
from tierce.doors.cask.keys import BadPath, InvalidKey, key_in, parse_key
from tierce.doors.cask.neighbors import Node

HEX = "bec6a3ef4770a51ba1feb4d41e7348ab43ac119a"
KEY = f"sha1:{HEX}"


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (f"/file/{KEY}/", KEY),
        (f"/file/{KEY}", KEY),
        (f"/file/{KEY}?a=b", KEY),
        (f"/file/{KEY}/extra", KEY),
        (f"/file/{KEY}/?a=b", KEY),
        (f"/file/sha1%3A{HEX}/", KEY),
        ("/file/sha1:..%2f../", "sha1:../.."),
        ("/file//", ""),
    ],
)
def test_where_the_key_stands(target: str, text: str) -> None:
    assert key_in(target) == text


@pytest.mark.parametrize(
    "target",
    ["/file/", "/file/?a=b", f"/file/{KEY}/a/b", f"/file/{KEY}/?a=/", f"/file%2F{KEY}/", "/file"],
)
def test_another_count_of_parts_is_refused(target: str) -> None:
    with pytest.raises(BadPath):
        key_in(target)


@pytest.mark.parametrize(
    "text",
    [
        "", "sha1", "sha1:", HEX, f"sha1:{HEX.upper()}", f"SHA1:{HEX}", f"{KEY}:junk", f"{KEY}0",
        KEY[:-1], f" {KEY}", f"{KEY}\n", f"md5:{HEX[:32]}", "sha256:" + "0" * 64,
        "blake3:" + "0" * 64, "sha1:" + "../" * 13 + ".", "sha1:" + "٣" * 40, "sha1:" + "\0" * 40,
    ],
)  # fmt: skip
def test_only_the_exact_form_is_a_key(text: str) -> None:
    with pytest.raises(InvalidKey):
        parse_key(text)


@given(st.text(max_size=60))
@example(KEY)
def test_what_is_taken_as_a_key_is_written_the_same(text: str) -> None:
    try:
        digest = parse_key(text)
    except InvalidKey:
        return
    assert str(digest) == text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "EOF"),
        (b" \r\n", "EOF"),
        (b"junk", "invalid character 'j' looking for beginning of value"),
        (b"\xff", "invalid character '\\xff' looking for beginning of value"),
    ],
)
def test_a_heartbeat_that_is_no_json_is_refused_in_gos_words(body: bytes, message: str) -> None:
    with pytest.raises(NotJson) as caught:
        parse_heartbeat(body)
    assert caught.value.message == message


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'"x"',
        b"{",
        b'{"secret":1}',
        b'{"neighbors":[{"uuid":1}]}',
        b'{"secret":"\xff"}',
        b"{}{}",
        b'{"a":' + b"[" * 60_000,
    ],
)
def test_a_heartbeat_of_another_shape_is_refused(body: bytes) -> None:
    with pytest.raises(NotJson):
        parse_heartbeat(body)


@pytest.mark.parametrize(
    ("body", "secret"),
    [
        (b'{"secret":"knock","uuid":"x","neighbors":[{"uuid":null}],"more":1}', "knock"),
        (b"{}", ""),
        (b"null", ""),
        (b'{"secret":null}', None),
    ],
)
def test_the_secret_of_a_heartbeat(body: bytes, secret: str | None) -> None:
    assert parse_heartbeat(body).secret == secret


def test_all_that_a_heartbeat_says() -> None:
    body = (
        b'{"uuid":"a","base_url":"http://a:1","writeable":true,"secret":"knock",'
        b'"neighbors":[{"uuid":"b","base_url":"http://b:1","writeable":false}]}'
    )
    found = parse_heartbeat(body)
    assert found.sender == Node("a", "http://a:1", True)
    assert found.neighbors == [Node("b", "http://b:1", False)]


@pytest.mark.parametrize(
    ("settings", "host", "url"),
    [
        (Settings(), "10.0.0.5", "http://10.0.0.5:8080"),
        (Settings(), "::1", "http://[::1]:8080"),
        (Settings(cask_base_url="https://cask.example"), "10.0.0.5", "https://cask.example"),
    ],
)
def test_the_base_url(settings: Settings, host: str, url: str) -> None:
    assert render.base_url(settings, Listen("cask", host, 8080)) == url


@pytest.mark.parametrize(
    ("target", "location"),
    [("/file", "/file/"), ("/join?url=a/b", "/join/?url=a/b"), ("/join?", "/join/?")],
)
def test_a_redirect_keeps_the_query(target: str, location: str) -> None:
    assert render.redirect(target).head == f"Location: {location}\r\n"
