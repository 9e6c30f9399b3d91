"""Digests: what is a name of a blob, and that nothing else is."""

import hashlib
import re

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from tierce.core.digest import ALGORITHMS, Digest, new_hasher
from tierce.core.errors import BadRequest

NAMES = st.sampled_from(sorted(ALGORITHMS))
DIGESTS = NAMES.flatmap(
    lambda name: st.binary(
        min_size=ALGORITHMS[name].size_bytes, max_size=ALGORITHMS[name].size_bytes
    ).map(lambda raw: Digest(name, raw))
)


@given(DIGESTS)
def test_a_digest_survives_its_text(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest


@given(st.lists(DIGESTS))
def test_digests_sort_as_their_texts_do(digests: list[Digest]) -> None:
    assert [str(each) for each in sorted(digests)] == sorted(map(str, digests))


@given(st.one_of(st.text(), st.from_regex(r"(sha1|sha256|sha512|blake3):[0-9a-fA-F./ ]*")))
def test_any_text_is_a_digest_of_the_strict_form_or_refused(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except BadRequest as error:
        assert error.hint
        return
    assert re.fullmatch(r"[a-z0-9]+:[0-9a-f]+", text, re.ASCII)
    assert str(digest) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha1",
        "sha1:",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "SHA1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "sha1:DA39A3EE5E6B4B0D3255BFEF95601890AFD80709",
        "sha1:da39a3ee5e6b4b0d3255bfef95601890afd8070",
        "sha1:da39a3ee5e6b4b0d3255bfef95601890afd807090",
        "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709\n",
        " sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709:junk",
        "sha1:../../../../../../../../../../../etc/pass",
        "sha1:da 9a3ee5e6b4b0d3255bfef95601890afd807 9",
        "sha1:\uff10a39a3ee5e6b4b0d3255bfef95601890afd80709",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    ],
)
def test_what_is_nearly_a_digest_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        Digest.parse(text)


def test_a_refusal_shows_hostile_text_escaped_and_cut() -> None:
    with pytest.raises(BadRequest) as caught:
        Digest.parse("\x1b[31m\n" + "x" * 10_000)
    assert "\x1b" not in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300


@given(st.binary(max_size=300))
def test_each_algorithm_is_the_real_one(data: bytes) -> None:
    assert Digest.of(data, "sha1").raw == hashlib.sha1(data).digest()
    assert Digest.of(data, "sha256").raw == hashlib.sha256(data).digest()
    assert Digest.of(data, "sha512").raw == hashlib.sha512(data).digest()
    assert Digest.of(data, "blake3").raw == blake3(data).digest()


@given(DIGESTS, st.binary(max_size=50))
def test_only_its_own_bytes_fit_a_digest(digest: Digest, data: bytes) -> None:
    assert Digest.of(data, digest.algorithm).fits(data)
    assert not digest.fits(data)


@given(NAMES, st.lists(st.binary(max_size=40)))
def test_hashing_in_parts_is_hashing_the_whole(name: str, parts: list[bytes]) -> None:
    hasher = new_hasher(name, b"".join(parts[:1]))
    for part in parts[1:]:
        hasher.update(part)
    assert hasher.digest() == Digest.of(b"".join(parts), name).raw


def test_an_unknown_algorithm_is_refused_by_name() -> None:
    with pytest.raises(BadRequest, match="md5") as caught:
        new_hasher("md5")
    assert "blake3" in caught.value.hint
