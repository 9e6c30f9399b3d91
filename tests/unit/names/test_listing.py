"""A folded listing is that of S3, and does not read what it folds."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierce.core.limits import FOLDED_PAGE_RECORDS, OBJECT_KEY_BYTES
from tierce.names.listing import Listing, list_page
from tierce.names.memory import MemoryIndex
from tierce.names.record import Record
from tierce.testing.index_contract import KEYS, keys_of, record, tombstone

PICTURES = ["photos/2006/January/sample.jpg", "photos/2006/February/sample2.jpg",
            "photos/2006/February/sample3.jpg", "photos/2006/February/sample4.jpg",
            "sample.jpg"]  # fmt: skip


class CountingIndex(MemoryIndex):
    """Counts the records that it is made to read, and the pages."""

    def __init__(self) -> None:
        super().__init__("node")
        self.read = self.pages = 0

    async def list_after(
        self, bucket: str, prefix: str, after: str, limit: int, *, deleted: bool = False
    ) -> list[Record]:
        page = await super().list_after(bucket, prefix, after, limit, deleted=deleted)
        self.read += len(page)
        self.pages += 1
        return page


async def index_of(keys: list[str]) -> CountingIndex:
    index = CountingIndex()
    await index.merge([record(key) for key in keys])
    return index


async def page(
    index: CountingIndex,
    prefix: str = "",
    delimiter: str = "/",
    *,
    after: str = "",
    limit: int = 1000,
) -> tuple[list[str], list[str], str]:
    listing = await list_page(
        index, "bucket", prefix=prefix, delimiter=delimiter, after=after, limit=limit
    )
    return keys_of(listing.records), listing.prefixes, listing.next_after


def naive(
    keys: list[str], prefix: str, delimiter: str, after: str, limit: int
) -> tuple[list[str], list[str], str]:
    """All items in order, then the page of them."""
    items = set()
    for key in keys:
        if key.startswith(prefix):
            rest = key[len(prefix) :]
            head, found, _ = rest.partition(delimiter) if delimiter else (rest, "", "")
            items.add((prefix + head + found, bool(found)))
    behind = sorted(
        (item for item in items if item[0].encode() > after.encode()),
        key=lambda item: item[0].encode(),
    )
    shown = behind[:limit]
    return (
        [item for item, is_prefix in shown if not is_prefix],
        [item for item, is_prefix in shown if is_prefix],
        shown[-1][0] if shown and len(behind) > len(shown) else "",
    )


async def test_the_example_of_s3_documents() -> None:
    index = await index_of(PICTURES)
    assert await page(index) == (["sample.jpg"], ["photos/"], "")
    assert await page(index, "photos/2006/") == (
        [],
        ["photos/2006/February/", "photos/2006/January/"],
        "",
    )
    assert await page(index, "photos/2006/February/s") == (sorted(PICTURES[1:4]), [], "")
    assert await page(index, "photos/2006") == ([], ["photos/2006/"], "")
    assert await page(index, delimiter="") == (sorted(PICTURES), [], "")
    assert await page(index, delimiter="sample") == (
        [],
        ["photos/2006/February/sample", "photos/2006/January/sample", "sample"],
        "",
    )


async def test_a_page_that_ends_with_a_common_prefix_goes_on_behind_it() -> None:
    index = await index_of([*PICTURES, "photos/z", "photos0"])
    assert await page(index, limit=1) == ([], ["photos/"], "photos/")
    assert await page(index, after="photos/", limit=1) == (["photos0"], [], "photos0")
    assert await page(index, after="photos0", limit=1) == (["sample.jpg"], [], "")


async def test_after_a_key_below_a_common_prefix_it_is_not_given_again() -> None:
    index = await index_of(PICTURES)
    assert await page(index, after="photos/2006/A") == (["sample.jpg"], [], "")


async def test_tombstones_make_no_common_prefix() -> None:
    index = await index_of(["b"])
    await index.merge([tombstone("a/1"), tombstone("a"), tombstone("c")])
    assert await page(index, limit=1) == (["b"], [], "")


async def test_an_empty_page_is_the_end() -> None:
    index = await index_of(PICTURES)
    assert await page(index, limit=0) == ([], [], "")
    assert await page(index, "nothing") == ([], [], "")
    assert await page(index, after="\U0010ffff") == ([], [], "")
    assert await list_page(index, "other", prefix="", delimiter="/", after="", limit=5) == Listing(
        [], [], ""
    )


async def test_keys_below_a_common_prefix_are_not_read() -> None:
    folders = [f"folder-{number:02}" for number in range(40)]
    index = await index_of([f"{folder}/{n:03}" for folder in folders for n in range(200)])
    assert await page(index) == ([], [f"{folder}/" for folder in folders], "")
    assert index.read <= (len(folders) + 1) * FOLDED_PAGE_RECORDS


async def test_plain_keys_are_read_in_few_large_pages() -> None:
    keys = [f"{number:05}" for number in range(3000)]
    index = await index_of([*keys, "zz/1"])
    assert await page(index, limit=3001) == (keys, ["zz/"], "")
    assert index.pages <= 6
    assert index.read <= 3002


@pytest.mark.parametrize("spare", [0, 1, 2, 3, 4, 5])
async def test_the_greatest_keys_below_a_common_prefix_are_folded_too(spare: int) -> None:
    common = "p" * (OBJECT_KEY_BYTES - 1 - spare) + "/"
    tails = ["", "\x7f" * spare, "\uffff", "\u07ff", "\U0010ffff", "\U0010ffff\x7f"]
    below = {tail for tail in tails if len(tail.encode()) <= spare}
    keys = [f"{common}{tail}" for tail in below]
    many = [f"{common[:-1]}.", *keys, f"{common[:-1]}0"]
    index = await index_of(many)
    assert await page(index, limit=2) == ([many[0]], [common], common)
    assert await page(index, after=common) == ([many[-1]], [], "")


texts = st.text(st.sampled_from(["a", "b", "/", "é", "\x01", "\uffff", "\U0010ffff"]), max_size=5)
keys_lists = st.lists(
    st.one_of(texts.filter(bool), st.sampled_from(KEYS)), max_size=40, unique=True
)


@settings(deadline=None)
@given(
    keys_lists, texts, st.sampled_from(["", "/", "é", "a/", "\U0010ffff"]), texts, st.integers(1, 9)
)
def test_every_page_is_that_of_the_naive_listing(
    keys: list[str], prefix: str, delimiter: str, after: str, limit: int
) -> None:
    async def run() -> None:
        index = await index_of(keys)
        start = after
        for _ in range(len(keys) + 1):
            found = await page(index, prefix, delimiter, after=start, limit=limit)
            assert found == naive(keys, prefix, delimiter, start, limit)
            start = found[2]
            if not start:
                return
        raise AssertionError("the pages have no end")

    asyncio.run(run())
