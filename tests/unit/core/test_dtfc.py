"""Names of files are cleaned as dtfc does it, and hashes are recognized."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.core.digest import Digest
from tierce.core.dtfc import NAME_CHARACTERS, cleaned_name, digest_in

HASH = "0123456789abcdef" * 8


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("My File (1)..TXT", "my-file-1txt"),
        ("a_b+c=d.JPG", "a-b-c-d.jpg"),
        ("café.Md", "cafe.md"),
        ('"q".txt', "q.txt"),
        ("movie.MKV", "movie.mkv"),
        (".hidden", ".hidden"),
        (" ", ""),
        ("", ""),
        (".", ""),
        ("..", ""),
        ("...", ""),
        ("(.)", ""),
        ("a/b/c.txt", "c.txt"),
        ("../../etc/passwd", "passwd"),
        ("a/", ""),
        ("  both ends  ", "both-ends"),
        ("a & b : c.txt", "a-b-c.txt"),
        ("a___b---c", "a-b-c"),
        ("-_-", "-"),
        ("Ångström Ærø Straße þ œ ż ł", "aangstrom-aeroe-strasse-th-oe-z-l"),
        ("cafe\u0301.txt", "cafe.txt"),
        ("日本.txt", ".txt"),
        ("a~b@c#d%e.txt", "a~bcde.txt"),
        ("tab\tline\nend\0", "tablineend"),
        ("a.(.b", "ab"),
        ("a-(..)-b", "a-b"),
        ("a-.(.)-b", "a-b"),
        ("\udcff.txt", ".txt"),
        ("x" * 300 + ".txt", "x" * (NAME_CHARACTERS - 4) + ".txt"),
    ],
)
def test_a_name_is_cleaned(sent: str, stored: str) -> None:
    assert cleaned_name(sent) == stored


@given(st.text(max_size=40) | st.text("ab. -_(Éß/", max_size=20))
def test_a_cleaned_name_is_plain_and_stays_as_it_is(sent: str) -> None:
    name = cleaned_name(sent)
    assert re.fullmatch(r"[a-z0-9~.-]*", name, re.ASCII)
    assert ".." not in name
    assert "--" not in name
    assert name != "."
    assert cleaned_name(name) == name


@pytest.mark.parametrize("text", [HASH, HASH.upper(), HASH[:64] + HASH[64:].upper()])
def test_a_hash_is_recognized_in_small_and_capital_letters(text: str) -> None:
    assert digest_in(text) == Digest.parse(f"sha512:{HASH}")


@pytest.mark.parametrize(
    "text", ["", "00", HASH[1:], HASH + "0", f"{HASH}.jpg", f"zz{HASH}", HASH[1:] + "g", HASH + "\n",
             HASH[1:] + "\uff11", " " + HASH[1:]]
)  # fmt: skip
def test_nothing_else_is_a_hash(text: str) -> None:
    assert digest_in(text) is None
