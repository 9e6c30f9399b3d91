"""Digest fields, against RFC 9530's own values and round trips through every algorithm."""

import base64
import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.core.digest import ALGORITHMS, Digest
from tierce.core.errors import BadRequest
from tierce.doors.shared.digest_fields import parse, render

# RFC 9530, appendix B: the digests of {"hello": "world"} and a line end.
EXAMPLE = b'{"hello": "world"}\n'
EXAMPLE_SHA256 = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
SHA256 = Digest.of(b"", "sha256")
SHA256_BASE64 = base64.b64encode(SHA256.raw).decode()

digests = st.builds(Digest.of, st.binary(max_size=8), st.sampled_from(sorted(ALGORITHMS)))


def test_the_example_of_the_rfc_is_rendered() -> None:
    assert render(Digest.of(EXAMPLE, "sha256")) == EXAMPLE_SHA256


def test_the_example_of_the_rfc_is_parsed() -> None:
    assert parse(EXAMPLE_SHA256) == {"sha256": Digest.of(EXAMPLE, "sha256")}


@pytest.mark.parametrize(
    ("algorithm", "field_name"),
    [("blake3", "blake3"), ("sha1", "sha"), ("sha256", "sha-256"), ("sha512", "sha-512")],
)
def test_algorithms_have_the_names_of_the_registry(algorithm: str, field_name: str) -> None:
    assert render(Digest.of(b"", algorithm)).startswith(f"{field_name}=:")


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_algorithm_can_be_rendered_and_parsed(algorithm: str) -> None:
    digest = Digest.of(b"some bytes", algorithm)
    assert parse(render(digest)) == {algorithm: digest}


@given(st.lists(digests, min_size=1, max_size=6), st.sampled_from([",", ", ", " ,\t"]))
def test_a_dictionary_holds_the_last_digest_of_each_algorithm(
    written: list[Digest], comma: str
) -> None:
    field = comma.join(render(digest) for digest in written)
    assert parse(field) == {digest.algorithm: digest for digest in written}


@pytest.mark.parametrize(
    "field",
    [
        f"  sha-256=:{SHA256_BASE64}:  ",
        f"sha-256=:{SHA256_BASE64.rstrip('=')}:",
        f"sha-256=:{SHA256_BASE64}:;note;q=1.5; to=tok/en:*;at=@-5;is=?0",
        f'sha-256=:{SHA256_BASE64}:;say="a, b \\" \\\\";show=%"a%c3%a9"',
        f"md5=:AAAA:, sha-256=:{SHA256_BASE64}:",
        f"crc32c=:AAAA:\t,\tsha-256=:{SHA256_BASE64}:,*future.v2_x",
        f"unixsum=30637,sha-256=:{SHA256_BASE64}:,other=token",
        f"sha-256=:AAAA:, sha-256=:{SHA256_BASE64}:",
    ],
)
def test_what_is_not_ours_is_passed_over(field: str) -> None:
    assert parse(field) == {"sha256": SHA256}


@pytest.mark.parametrize("field", ["", "   ", "md5=:AAAA:", "sha256=:AAAA:", "a", "a;b=1"])
def test_a_field_without_an_algorithm_of_ours_is_empty(field: str) -> None:
    assert parse(field) == {}


@pytest.mark.parametrize(
    "field",
    [
        ",",
        "=",
        "sha-256=",
        f"SHA-256=:{SHA256_BASE64}:",
        f"sha-256={SHA256_BASE64}",
        f"sha-256=:{SHA256_BASE64}",
        f"sha-256={SHA256_BASE64}:",
        f"sha-256 =:{SHA256_BASE64}:",
        f"sha-256= :{SHA256_BASE64}:",
        f"sha-256=:{SHA256_BASE64}:,",
        f",sha-256=:{SHA256_BASE64}:",
        f"sha-256=:{SHA256_BASE64}:,,a",
        f"sha-256=:{SHA256_BASE64}: a",
        f"sha-256=:{SHA256_BASE64}:;",
        f"sha-256=:{SHA256_BASE64}: ;a",
        f"sha-256=:{SHA256_BASE64}:\n",
        "sha-256=:****:",
        "sha-256=(:AAAA:)",
        "a=1234567890123456",
        "a=1.2345",
        'a="\u00e9"',
        'a="open',
        "a=?2",
        "\u00e9",
    ],
)
def test_broken_syntax_is_refused_with_its_place_and_a_hint(field: str) -> None:
    with pytest.raises(BadRequest, match="breaks its syntax at character") as caught:
        parse(field)
    assert "RFC 9530" in caught.value.hint


@pytest.mark.parametrize(
    "value",
    [
        "",
        "=::",
        "=:AAAA:",
        "=:" + base64.b64encode(bytes(31)).decode() + ":",
        "=:" + base64.b64encode(bytes(33)).decode() + ":",
        "=:" + base64.b64encode(bytes(32)).decode() + "=:",
        "=:" + "A" * 41 + ":",
        "=:" + "A" * 45 + ":",
        "=:=" + "A" * 43 + ":",
        "=:====:",
        "=1",
        "=token",
        '="text"',
    ],
)
def test_a_digest_of_ours_must_be_bytes_of_its_length(value: str) -> None:
    with pytest.raises(BadRequest, match="does not hold a sha256 digest") as caught:
        parse("sha-256" + value)
    assert "32 bytes" in caught.value.hint


def test_stray_bits_at_the_end_of_base64_are_ignored() -> None:
    """RFC 9651, section 4.2.7, asks parsers not to fail on them by default."""
    raw = bytes(32)
    assert parse("sha-256=:" + "A" * 42 + "B=:") == {"sha256": Digest("sha256", raw)}


@given(
    st.one_of(
        st.text(),
        st.text(alphabet='ab=:;,?@%"\\ \t019.-*()', max_size=40),
        st.text(alphabet="AQw+/=", max_size=60).map("sha-256=:{}:".format),
    )
)
def test_any_text_gives_right_digests_or_a_bad_request(field: str) -> None:
    try:
        found = parse(field)
    except BadRequest:
        found = {}
    assert all(len(digest.raw) == ALGORITHMS[name].size_bytes for name, digest in found.items())
    assert all(name == digest.algorithm for name, digest in found.items())


@given(st.binary(min_size=32, max_size=32))
def test_base64_agrees_with_the_standard_library(raw: bytes) -> None:
    digest = Digest("sha256", raw)
    assert render(digest) == "sha-256=:" + base64.b64encode(raw).decode("ascii") + ":"
    assert parse(render(digest))["sha256"].raw == raw


@pytest.mark.parametrize(
    "text", ["a,", "a;", "a;b", "a;b;", 'a="', '\\"', "a=:", " ", "; ", "9", "a"]
)
def test_floods_are_read_in_linear_time(text: str) -> None:
    began = time.process_time()
    for field in (text * 100_000 + "\n", "a=" + text * 100_000 + "\n", "a" + text * 100_000 + "\n"):
        with pytest.raises(BadRequest):
            parse(field)
    assert time.process_time() - began < 3


def test_sha1_is_the_sha_of_the_registry() -> None:
    assert parse(f"sha=:{base64.b64encode(hashlib.sha1(b'x').digest()).decode()}:") == {
        "sha1": Digest.of(b"x", "sha1")
    }
