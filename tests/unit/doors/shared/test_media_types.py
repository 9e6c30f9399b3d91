"""Types by extension and by content, the same on every machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.core.limits import SNIFFED_BYTES
from tierce.doors.shared.media_types import TEXT, UNKNOWN, by_content, by_name

HTML = "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("test.txt", TEXT), ("a.HTML", HTML), ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"), ("a.json", "application/json"),
        ("a.xml", "text/xml; charset=utf-8"), ("a.svg", "image/svg+xml"), ("a.jpeg", "image/jpeg"),
        ("a.tar.gz", "application/gzip"), ("a.webp", "image/webp"), ("a.pdf", "application/pdf"),
        ("dir.zip/a.png", "image/png"), ("dir.zip/a", ""), ("", ""), ("noextension", ""),
        ("a.", ""), ("a.unheardof", ""), (".txt", TEXT), ("a.py", "text/x-python; charset=utf-8"),
        ("a.sh", "application/x-sh"),
    ],
)  # fmt: skip
def test_an_extension_stands_for_a_type(name: str, kind: str) -> None:
    assert by_name(name) == kind


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", TEXT),
        (b"It works!", TEXT),
        ("Stra\u00dfe".encode(), TEXT),
        (b"tab\tescape\x1b[0m", TEXT),
        (b"\x00", UNKNOWN),
        (b"text\x07", UNKNOWN),
        (b"\n\t <!DOCTYPE html>", HTML),
        (b"<html>", HTML),
        (b"<a href=x>", HTML),
        (b"<!-- a comment>", HTML),
        (b"<abc>", TEXT),
        (b"<html", TEXT),
        (b" <?xml version='1.0'?>", "text/xml; charset=utf-8"),
        (b"%PDF-1.7", "application/pdf"),
        (b" %PDF-1.7", TEXT),
        (b"\x89PNG\r\n\x1a\n\x00", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a\x00", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wave"),
        (b"PK\x03\x04\x14\x00", "application/zip"),
        (b"\x1f\x8b\x08\x00", "application/x-gzip"),
        (b"\xef\xbb\xbfhi", TEXT),
        (b"\xfe\xff\x00h", "text/plain; charset=utf-16be"),
        (b"\xff\xfeh\x00", "text/plain; charset=utf-16le"),
        (b"\x00\x00\x00\x10ftypmp42\x00\x00\x00\x00", "video/mp4"),
        (b"\x00\x00\x00\x14ftypisom\x00\x00\x02\x00mp41", "video/mp4"),
        (b"\x00\x00\x00\x14ftypisommp41isom", UNKNOWN),
        (b"OggS\x00\x02", "application/ogg"),
    ],
)
def test_the_first_bytes_stand_for_a_type(content: bytes, kind: str) -> None:
    assert by_content(content) == kind


def test_only_the_first_bytes_count() -> None:
    assert by_content(b"x" * SNIFFED_BYTES + b"\x00") == TEXT


@given(st.binary(max_size=SNIFFED_BYTES), st.text(max_size=40))
def test_a_type_is_fit_for_a_header(content: bytes, name: str) -> None:
    for kind in (by_content(content), by_name(name)):
        assert kind.isascii()
        assert not kind or kind.isprintable()
