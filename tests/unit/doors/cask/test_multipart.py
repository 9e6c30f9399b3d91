"""The file in a multipart body: found whatever surrounds it, however the bytes arrive."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tierce.core.errors import BadRequest
from tierce.core.limits import MULTIPART_PREAMBLE_BYTES
from tierce.doors.cask.multipart import FileReader, boundary_of
from tierce.doors.shared.bodies import UnsupportedEncoding

LIMIT = 1 << 20
FILE = b'Content-Disposition: form-data; name="file"; filename="a.bin"'
NAMELESS = b'Content-Disposition: form-data; name="file"'
BOUNDARY = b"b0undary"

boundaries = st.text(
    "0123456789abcXYZ'()+_,-./:=? ", min_size=1, max_size=70
).filter(lambda text: text == text.strip()).map(str.encode)  # fmt: skip


def read(body: bytes, cuts: list[int] | None = None, boundary: bytes = BOUNDARY) -> bytes:
    """The file, when the body arrives in pieces cut at these places."""
    reader = FileReader(boundary, "file", LIMIT)
    places = sorted({min(cut, len(body)) for cut in cuts or ()})
    found = b""
    for start, stop in zip([0, *places], [*places, len(body)], strict=True):
        found += b"".join(reader.feed(body[start:stop]))
        assert reader.held_bytes <= MULTIPART_PREAMBLE_BYTES
    reader.end()
    return found


def part(headers: bytes, content: bytes, boundary: bytes = BOUNDARY) -> bytes:
    return b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, headers, content)


def form(*parts: bytes, boundary: bytes = BOUNDARY) -> bytes:
    return b"".join(parts) + b"--%b--\r\n" % boundary


def has_delimiter(content: bytes, boundary: bytes) -> bool:
    """Whether content can't be sent with this boundary, as no sender would choose it."""
    line = rb"\r\n--%b(--)?[ \t]{0,256}\r\n" % re.escape(boundary)
    return re.search(line, b"\r\n%b\r\n" % content) is not None


@st.composite
def near_delimiters(draw: st.DrawFn, boundary: bytes) -> bytes:
    """Content that looks like the frame around it, cut short and put together anew."""
    frame = b"\r\n--%b--\r\n" % boundary
    pieces = st.one_of(
        st.sampled_from([b"\r\n", b"\r", b"\n", b"--", b"\r\n--", b" ", b"x", b"\r\n\r\n", frame]),
        st.integers(0, len(frame)).map(lambda stop: frame[:stop]),
        st.integers(0, len(frame)).map(lambda start: frame[start:]),
        st.just(frame + b"x"),
        st.just(b"\r\n--%b\tx\r\n" % boundary),
        st.binary(max_size=20),
    )
    return b"".join(draw(st.lists(pieces, max_size=8)))


@given(st.data())
def test_the_file_comes_out_to_the_letter(data: st.DataObject) -> None:
    boundary = data.draw(boundaries)
    content = data.draw(near_delimiters(boundary))
    preamble = data.draw(st.sampled_from([b"", b"\r\n", b"This is MIME.\r\n", b"--\r\n\r\n"]))
    epilogue = data.draw(st.sampled_from([b"", b"bye", b"\r\n--%b\r\n" % boundary]))
    others = data.draw(st.lists(near_delimiters(boundary), max_size=3))
    place = data.draw(st.integers(0, len(others)))
    for each in [content, *others]:
        assume(not has_delimiter(each, boundary))
    parts = [
        part(b'content-disposition: form-data; name="other"', each, boundary) for each in others
    ]
    parts.insert(place, part(FILE, content, boundary))
    body = preamble + form(*parts, boundary=boundary) + epilogue
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=12))
    assert read(body, cuts, boundary) == content


@given(st.binary(max_size=100))
def test_the_bytes_may_come_one_by_one(content: bytes) -> None:
    assume(not has_delimiter(content, BOUNDARY))
    body = form(part(b"Content-Type: x/y", b"first"), part(FILE, content), part(FILE, b"second"))
    assert read(body, list(range(len(body)))) == content


@given(st.integers(0, 200), st.lists(st.integers(0, 200), max_size=3))
def test_a_body_cut_off_anywhere_is_refused(stop: int, cuts: list[int]) -> None:
    body = form(part(FILE, b"content"), part(b"Content-Disposition: form-data; name=b", b"2"))
    whole = len(body) - len(b"\r\n")
    if stop >= whole:
        assert read(body[:stop], cuts) == b"content"
    else:
        with pytest.raises(BadRequest):
            read(body[:stop], cuts)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=3))
def test_garbage_is_refused(body: bytes, cuts: list[int]) -> None:
    with pytest.raises(BadRequest):
        read(body, cuts)


@given(near_delimiters(BOUNDARY), st.lists(st.integers(0, 300), min_size=1, max_size=5))
def test_the_outcome_does_not_depend_on_how_the_bytes_arrive(
    middle: bytes, cuts: list[int]
) -> None:
    def outcome(cuts: list[int]) -> bytes | str:
        try:
            return read(form(part(FILE, middle)), cuts)
        except BadRequest as error:
            return error.message

    assert outcome(cuts) == outcome([])


def test_a_large_file_is_not_held_back() -> None:
    reader = FileReader(BOUNDARY, "file", LIMIT)
    assert list(reader.feed(b"--%b\r\n%b\r\n\r\n" % (BOUNDARY, FILE))) == []
    for _ in range(64):
        assert len(b"".join(reader.feed(b"\r\n-" * 20_000))) >= 59_900
        assert reader.held_bytes < 300


def test_an_empty_file_is_a_file() -> None:
    assert read(form(part(FILE, b""))) == b""


def test_a_part_may_end_where_its_headers_end() -> None:
    assert read(form(b"--%b\r\n%b\r\n\r\n" % (BOUNDARY, FILE))) == b""


def test_white_space_behind_a_delimiter_is_no_content() -> None:
    body = b"--%b \t\r\n%b\r\n\r\nabc\r\n--%b--  " % (BOUNDARY, FILE, BOUNDARY)
    assert read(body, list(range(len(body)))) == b"abc"


def test_a_nested_multipart_is_content() -> None:
    inner = b"--inner\r\n%b\r\n\r\nx\r\n--inner--\r\n" % FILE
    headers = FILE + b"\r\nContent-Type: multipart/mixed; boundary=inner"
    assert read(form(part(headers, inner))) == inner


def test_a_boundary_that_goes_on_is_content() -> None:
    inner = b"\r\n--%b-and-more\r\n--%b--and-more\r\n" % (BOUNDARY, BOUNDARY)
    assert read(form(part(FILE, inner))) == inner


@pytest.mark.parametrize(
    "headers",
    [
        b"content-disposition:form-data;NAME=file;FileName=x",
        b'X: 1\r\nContent-Disposition: form-data; filename="a;b\\"; name=c"; name="file"',
        b'Content-Disposition: form-data;\r\n name="file";\r\n\tfilename="a"',
        b'Content-Disposition: form-data; name="file"; filename="\xff\xfe"',
        b"Content-Disposition: form-data; name=file; filename*=UTF-8''%e2%82%ac",
        FILE + b"\r\nContent-Transfer-Encoding: Binary\r\nContent-Length: 99",
    ],
)
def test_the_file_is_known_by_its_headers(headers: bytes) -> None:
    assert read(form(part(headers, b"abc"))) == b"abc"


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Type: text/plain",
        b'Content-Disposition: form-data; name="files"; filename="a"',
        b'Content-Disposition: form-data; name="file\\"; filename="a"',
        b'Content-Disposition: attachment; name="file"; filename="a"',
        b'Content-Disposition: form-data; filename="name=file"',
        b'Content-Disposition: form-data; x="; name="file"; filename="a"',
    ],
)
def test_another_part_is_not_taken_for_the_file(headers: bytes) -> None:
    with pytest.raises(BadRequest, match="`file` is not there"):
        read(form(part(headers, b"abc")))


@pytest.mark.parametrize("headers", [NAMELESS, NAMELESS + b'; filename=""'])
def test_a_field_without_a_file_name_is_no_file(headers: bytes) -> None:
    with pytest.raises(BadRequest, match="has no file name") as caught:
        read(form(part(headers, b"hello.txt")))
    assert "curl -F file=@PATH" in caught.value.hint


def test_a_closing_delimiter_among_headers_ends_nothing() -> None:
    with pytest.raises(BadRequest, match="closing delimiter"):
        read(part(FILE, b"abc") + b"--%b\r\n--%b--" % (BOUNDARY, BOUNDARY))


def test_an_encoded_part_is_refused() -> None:
    headers = FILE + b"\r\nContent-Transfer-Encoding: base64"
    with pytest.raises(UnsupportedEncoding):
        read(form(part(headers, b"aGVsbG8=")))


@pytest.mark.parametrize("headers", [b"no header", FILE + b"\r\nhalf"])
def test_a_line_that_is_no_header_is_refused(headers: bytes) -> None:
    with pytest.raises(BadRequest, match="not a header"):
        read(form(part(headers, b"abc")))


def test_giant_headers_are_refused_before_they_are_held() -> None:
    body = form(part(FILE + b"; x=" + b"y" * MULTIPART_PREAMBLE_BYTES, b"abc"))
    with pytest.raises(BadRequest, match="headers of a part"):
        read(body, list(range(0, len(body), 1000)))


def test_a_giant_preamble_is_refused() -> None:
    with pytest.raises(BadRequest, match="belong to no file"):
        read(b"x" * (MULTIPART_PREAMBLE_BYTES + 100) + b"\r\n" + form(part(FILE, b"abc")))


@pytest.mark.parametrize("place", ["before", "behind", "epilogue"])
def test_what_is_beside_the_file_is_bounded(place: str) -> None:
    junk = part(b"Content-Disposition: form-data; name=junk", b"x" * LIMIT)
    body = {
        "before": form(junk, part(FILE, b"abc")),
        "behind": form(part(FILE, b"abc"), junk),
        "epilogue": form(part(FILE, b"abc")) + junk,
    }[place]
    with pytest.raises(BadRequest, match="belong to no file"):
        read(body, list(range(0, len(body), 65536)))


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data;charset=utf-8; Boundary="a b:c"', b"a b:c"),
        ("multipart/form-data; boundary=----=_Part_1/2", b"----=_Part_1/2"),
        ("multipart/form-data; boundary=----WebKitFormBoundary7MA4", b"----WebKitFormBoundary7MA4"),
        ('multipart/form-data; boundary="a\\"b"', b'a"b'),
        ("multipart/form-data; boundary=" + "x" * 70, b"x" * 70),
        ("multipart/form-data; boundary=" + "x" * 71, None),
        ("multipart/form-data; boundary=", None),
        ('multipart/form-data; boundary="abc ', None),
        ('multipart/form-data; boundary="abc "', None),
        ('multipart/form-data; boundary="a\r\nb"', None),
        ("multipart/form-data; boundary=ä", None),
        ("multipart/form-data", None),
        ("multipart/mixed; boundary=abc", None),
        ("application/x-www-form-urlencoded", None),
        ("", None),
    ],
)
def test_the_boundary_of_a_content_type(content_type: str, boundary: bytes | None) -> None:
    if boundary is None:
        with pytest.raises(BadRequest):
            boundary_of(content_type)
    else:
        assert boundary_of(content_type) == boundary
