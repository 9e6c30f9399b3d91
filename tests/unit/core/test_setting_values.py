"""Values that settings are made of: sizes, durations, listen addresses, rights and tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.core.errors import BadRequest
from tierce.core.listen import DOORS, Listen
from tierce.core.rights import Right, Token, hash_token, parse_rights
from tierce.core.sizes import format_duration, format_size, parse_duration, parse_size

HASH = "sha256-" + "ab" * 32

# Sizes and durations


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        (0, 0),
        (4096, 4096),
        ("0", 0),
        ("1_000", 1000),
        ("64KiB", 65536),
        ("64 kib", 65536),
        ("10MB", 10_000_000),
        ("1kB", 1000),
        ("12B", 12),
        ("1.5KiB", 1536),
        ("5GiB", 5 << 30),
        ("2TiB", 2 << 40),
        ("1PB", 10**15),
    ],
)
def test_size_is_read(text: object, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5G",
        "5K",
        "-1",
        -1,
        "1.5",
        "1__0",
        "_1",
        "1e3",
        "KiB",
        "5XiB",
        "٣",
        True,
        1.5,
        None,
        "9" * 100,
        "1" + "0" * 10_000,
        [1],
        "0.0001KiB",
        "64KiB\0",
    ],
)
def test_what_is_no_size_is_refused_with_a_hint(text: object) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_size(text)
    assert "64KiB" in caught.value.hint


@given(st.integers(min_value=0, max_value=1 << 63))
def test_a_size_survives_being_written_and_read(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (0, 0),
        (20, 20),
        (0.5, 0.5),
        ("20", 20),
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("0.25s", 0.25),
        ("1.5 h", 5400),
        ("1_000", 1000),
        ("5M", 300),
    ],
)
def test_duration_is_read(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5x", "-1", -1, "nan", float("nan"), float("inf"), "inf", "1h30m", True, None, [5]]
)
def test_what_is_no_duration_is_refused_with_a_hint(text: object) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_duration(text)
    assert "5m" in caught.value.hint


@given(st.floats(min_value=0.001, max_value=1e9))
def test_a_duration_survives_being_written_and_read(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


# Listen addresses

HOSTS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.sampled_from(["localhost", "a.example.org", "node-1", "under_score"]),
)


@given(st.sampled_from(DOORS), HOSTS, st.integers(0, 65535))
def test_a_listen_address_survives_being_written_and_read(door: str, host: str, port: int) -> None:
    listen = Listen(door, host, port)
    assert Listen.parse(str(listen)) == listen


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("native=127.0.0.1:7070", Listen("native", "127.0.0.1", 7070)),
        ("native=[::1]:7070", Listen("native", "::1", 7070)),
        ("native=[0:0::1]:0", Listen("native", "::1", 0)),
        ("cask=localhost:80", Listen("cask", "localhost", 80)),
    ],
)
def test_listen_address_is_read(text: str, listen: Listen) -> None:
    assert Listen.parse(text) == listen


@pytest.mark.parametrize(
    ("text", "part", "hint"),
    [
        ("7070", "'7070'", "native=127.0.0.1:7070"),
        ("127.0.0.1:7070", "'127.0.0.1:7070'", "native=127.0.0.1:7070"),
        ("native=127.0.0.1", "'native=127.0.0.1'", "native=127.0.0.1:7070"),
        ("natve=127.0.0.1:1", "'natve'", "Did you mean native?"),
        ("s3=127.0.0.1:1", "'s3'", "native, cask"),
        ("native=:7070", "names no host", "0.0.0.0"),
        ("native=::1:7070", "no brackets", "[::1]"),
        ("native=[::1", "no brackets", ""),
        ("native=[x]:1", "'[x]'", ""),
        ("native=a b:1", "'a b'", ""),
        ("native=a..b:1", "'a..b'", ""),
        ("native=-a:1", "'-a'", ""),
        ("native=h:65536", "'65536'", "0 to 65535"),
        ("native=h:-1", "'-1'", "0 to 65535"),
        ("native=h:", "''", "0 to 65535"),
        ("native=h:٣", "0663", "0 to 65535"),
    ],
)
def test_a_bad_listen_address_is_refused(text: str, part: str, hint: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Listen.parse(text)
    assert part in caught.value.message
    assert hint in caught.value.hint


# Rights and tokens


def test_rights_are_read() -> None:
    assert parse_rights("write+read") == {Right.READ, Right.WRITE}


@pytest.mark.parametrize("text", ["", "+", "read+", "raed", "READ", "read,write"])
def test_bad_rights_are_refused(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_rights(text)
    assert caught.value.hint


def test_a_token_survives_being_written_and_read() -> None:
    token = Token.of("back-up.1", frozenset({Right.WRITE, Right.READ}), "tierce_text")
    assert str(token) == f"back-up.1:read+write:sha256-{hash_token('tierce_text').hex()}"
    assert Token.parse(str(token)) == token


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name:read",
        f"a b:read:{HASH}",
        f":read:{HASH}",
        f"name::{HASH}",
        f"name:raed:{HASH}",
        "name:read:sha256-abc",
        f"name:read:{HASH.upper()}",
        f"n:read:{HASH}0",
    ],
)
def test_a_bad_token_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Token.parse(text)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "tierce_x", "\udcff", "ü"])
def test_any_text_has_a_hash(text: str) -> None:
    assert len(hash_token(text)) == 32
