"""Values that settings are made of: sizes, durations, listen addresses, rights and tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.core import kinds
from tierce.core.errors import BadRequest
from tierce.core.limits import WEIGHT_MAX, WEIGHT_MIN
from tierce.core.listen import DOORS, PRIVATE, Listen
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


# Addresses of nodes


@given(HOSTS, st.integers(0, 65535))
def test_a_private_address_survives_being_written_and_read(host: str, port: int) -> None:
    private = Listen(PRIVATE, host, port)
    assert Listen.private(private.address) == private
    assert kinds.private.parse(kinds.private.show(private)) == private


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("127.0.0.1:7071", Listen(PRIVATE, "127.0.0.1", 7071)),
        (" [0:0::1]:0 ", Listen(PRIVATE, "::1", 0)),
        ("node-1.example.org:1", Listen(PRIVATE, "node-1.example.org", 1)),
    ],
)
def test_private_address_is_read(text: str, private: Listen) -> None:
    assert Listen.private(text) == private


@pytest.mark.parametrize(
    ("text", "part", "hint"),
    [
        ("", "''", "10.0.0.5:7071"),
        ("7071", "'7071'", "10.0.0.5:7071"),
        ("private=h:1", "'private=h:1'", "10.0.0.5:7071"),
        ("h", "'h'", "10.0.0.5:7071"),
        (":7071", "names no host", "0.0.0.0"),
        ("::1:7071", "no brackets", "[::1]"),
        ("a b:1", "'a b'", ""),
        ("http://h:1", "'http:", ""),
        ("h:65536", "'65536'", "0 to 65535"),
        ("h:", "''", "0 to 65535"),
    ],
)
def test_a_bad_private_address_is_refused(text: str, part: str, hint: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Listen.private(text)
    assert part in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("10.0.0.5:7071", "10.0.0.5:7071"),
        (" [0:0::1]:1 ", "[::1]:1"),
        ("http://cask.example.org:8080/", "http://cask.example.org:8080"),
        ("https://h", "https://h"),
    ],
)
def test_another_node_is_named_by_its_private_address_or_a_url(text: str, peer: str) -> None:
    assert kinds.peer.parse(text) == peer
    assert kinds.peer.parse(kinds.peer.show(peer)) == peer


@pytest.mark.parametrize("text", ["", "h", "h:0", "a=h:1", "http://", "http://h?x", "//h:1", 7071])
def test_what_names_no_other_node_is_refused_with_a_hint(text: object) -> None:
    with pytest.raises(BadRequest) as caught:
        kinds.peer.parse(text)
    assert caught.value.hint


def test_an_address_that_may_be_empty_is_read() -> None:
    assert kinds.peer_or_empty.parse("") == ""
    assert kinds.peer_or_empty.parse("[0::1]:7071") == "[::1]:7071"
    with pytest.raises(BadRequest):
        kinds.peer_or_empty.parse("http://h:1")


# Numbers and names


@pytest.mark.parametrize(
    ("value", "number"), [(1, 1.0), (0.5, 0.5), ("2", 2.0), (" 0.25 ", 0.25), ("0", 0.0), (9, 9.0)]
)
def test_number_is_read(value: object, number: float) -> None:
    found = kinds.number(0, 9).parse(value)
    assert (found, type(found)) == (number, float)


@pytest.mark.parametrize(
    "value",
    [
        "", "x", "1,5", "1.", ".5", "+1", "-1", -1, "1e3", "nan", float("nan"), float("inf"), True,
        None, [1], "٣", "1_0", "9" * 100, "0." + "9" * 100, 9.1, "10",
    ],
)  # fmt: skip
def test_what_is_no_number_or_out_of_bounds_is_refused_with_a_hint(value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        kinds.number(0, 9).parse(value)
    assert caught.value.hint


@given(st.integers(5, 10_000))
def test_a_number_survives_being_written_and_read(hundredths: int) -> None:
    kind = kinds.number(WEIGHT_MIN, WEIGHT_MAX)
    assert kind.parse(kind.show(hundredths / 100)) == hundredths / 100


@pytest.mark.parametrize("text", ["", "rack-1", "A.b_c", "z" * 64, " padded "])
def test_a_word_is_read(text: str) -> None:
    assert kinds.word.parse(text) == text.strip()


@pytest.mark.parametrize("text", ["a b", "a/b", "ü", "a\nb", "a,b", "z" * 65, 5, None])
def test_what_is_no_word_is_refused_with_a_hint(text: object) -> None:
    with pytest.raises(BadRequest) as caught:
        kinds.word.parse(text)
    assert caught.value.hint


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
