"""The file format of large blobs: its sizes can be inverted, and its checksums find damage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.blobs import layout
from tierce.core.limits import CHUNK_BYTES

SIZES = st.one_of(
    st.integers(0, 4 * CHUNK_BYTES),
    st.integers(1, 50_000).flatmap(
        lambda chunks: st.integers(chunks * CHUNK_BYTES - 20, chunks * CHUNK_BYTES + 20)
    ),
)


@given(SIZES)
def test_the_size_of_the_content_follows_from_the_size_of_the_file(size: int) -> None:
    assert layout.content_bytes(layout.file_bytes(size)) == size


@given(st.integers(0, 3 * CHUNK_BYTES))
def test_a_file_size_that_no_content_makes_is_told(file_size: int) -> None:
    size = layout.content_bytes(file_size)
    assert size is None or layout.file_bytes(size) == file_size


@pytest.mark.parametrize("damage", range(17, 24))
def test_a_file_cut_within_its_last_checksum_fits_no_content(damage: int) -> None:
    size = 2 * CHUNK_BYTES + 1
    assert layout.content_bytes(layout.file_bytes(size) - damage) != size


@given(st.binary(min_size=1, max_size=2000), st.data())
def test_a_checksum_finds_any_flipped_bit(content: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(content) - 1))
    bit = data.draw(st.integers(0, 7))
    harmed = bytearray(content)
    harmed[at] ^= 1 << bit
    assert layout.sums(content, 0) != layout.sums(harmed, 0)


def test_the_same_chunk_elsewhere_has_another_checksum() -> None:
    assert layout.sums(b"chunk", 0) != layout.sums(b"chunk", 1)


def test_checksums_of_pieces_join_to_those_of_the_whole() -> None:
    content = bytes(range(256)) * (5 * CHUNK_BYTES // 256) + b"rest"
    cut = 2 * CHUNK_BYTES
    assert layout.sums(content, 0) == layout.sums(content[:cut], 0) + layout.sums(content[cut:], 2)


def test_the_footer_is_bound_to_size_and_version() -> None:
    assert layout.footer_fits(layout.footer(7), 7)
    assert not layout.footer_fits(layout.footer(7), 8)
    assert not layout.footer_fits(b"\0" * layout.FOOTER.size, 7)
