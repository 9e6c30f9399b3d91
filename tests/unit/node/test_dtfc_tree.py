"""The tree of a dtfc program: markers, names, and the bytes from any position."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.doors.dtfc.wire import DIGEST, HASH, HELLO, in_tree

from tierce.core.errors import NotFound, Unavailable
from tierce.core.limits import PIECE_BYTES
from tierce.node.dtfc_tree import FORBIDDEN, GONE, Tree


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    with ThreadPoolExecutor(1) as pool:
        yield Tree(tmp_path, pool)


async def content_of(tree: Tree, start: int = 0) -> tuple[int | None, int, str, bytes]:
    async with tree.open(DIGEST, start) as head:
        content = b"".join([piece async for piece in head.pieces])
        return head.size, head.start, head.name, content


def test_the_tree_has_a_level_for_each_pair_of_digits(tree: Tree, tmp_path: Path) -> None:
    directory = tmp_path / "ac" / "34" / "e7"
    assert in_tree(tmp_path).is_relative_to(directory)
    assert len(in_tree(tmp_path).relative_to(tmp_path).parts) == 64


@pytest.mark.parametrize("marker", [FORBIDDEN, GONE])
def test_a_marker_counts_by_being_there(tree: Tree, tmp_path: Path, marker: str) -> None:
    assert not tree.has_marker(DIGEST, marker)
    assert not tree.has_directory(DIGEST)
    directory = in_tree(tmp_path)
    assert tree.has_directory(DIGEST)
    assert not tree.has_marker(DIGEST, marker)
    (directory / marker).write_text(" ")
    assert tree.has_marker(DIGEST, marker)
    assert not tree.has_marker(DIGEST, GONE if marker == FORBIDDEN else FORBIDDEN)


def test_a_file_in_the_place_of_a_level_hides_nothing(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / HASH[:2]).write_text("")
    assert not tree.has_directory(DIGEST)
    assert not tree.has_marker(DIGEST, FORBIDDEN)
    assert not tree.has(DIGEST)


def test_a_marker_that_can_not_be_looked_for_is_not_taken_as_missing(
    tree: Tree, tmp_path: Path
) -> None:
    (tmp_path / HASH[:2]).symlink_to(tmp_path / HASH[:2])
    with pytest.raises(Unavailable):
        tree.has_marker(DIGEST, FORBIDDEN)
    with pytest.raises(Unavailable):
        tree.has_directory(DIGEST)


async def test_a_file_is_told_and_read_with_its_last_name(tree: Tree, tmp_path: Path) -> None:
    directory = in_tree(tmp_path)
    (directory / "data").write_bytes(HELLO)
    (directory / "filename").write_text("old.txt\nnew.txt\n\n")
    assert tree.has(DIGEST)
    assert await tree.find(DIGEST) == ("new.txt", 11)
    assert await content_of(tree) == (11, 0, "new.txt", HELLO)


async def test_a_file_is_read_from_any_position(tree: Tree, tmp_path: Path) -> None:
    content = bytes(range(250)) * (2 * PIECE_BYTES // 250)
    (in_tree(tmp_path) / "data").write_bytes(content)
    for start in (1, PIECE_BYTES, len(content) - 1, len(content)):
        assert await content_of(tree, start) == (len(content), start, "", content[start:])


@pytest.mark.parametrize(
    ("text", "name"),
    [(b"", ""), (b"\n \n", ""), (b"no end", "no end"), (b"\xff.txt\n", "\ufffd.txt"),
     (b"old\n" * 3000 + b"new\n", "new"), (b"x" * 9000, "x" * 255)],
    ids=["empty", "blank", "no end", "no text", "many", "long"],
)  # fmt: skip
async def test_the_last_line_is_the_name(
    tree: Tree, tmp_path: Path, text: bytes, name: str
) -> None:
    directory = in_tree(tmp_path)
    (directory / "data").touch()
    (directory / "filename").write_bytes(text)
    assert await tree.find(DIGEST) == (name, 0)


async def test_what_is_not_there_is_not_found(tree: Tree, tmp_path: Path) -> None:
    (in_tree(tmp_path) / "data").mkdir()
    assert not tree.has(DIGEST)
    assert await tree.find(DIGEST) is None
    with pytest.raises(NotFound):
        await content_of(tree)


async def test_a_file_that_shrinks_while_it_is_read_is_told(tree: Tree, tmp_path: Path) -> None:
    path = in_tree(tmp_path) / "data"
    path.write_bytes(bytes(2 * PIECE_BYTES))
    async with tree.open(DIGEST) as head:
        assert len(await anext(head.pieces)) == PIECE_BYTES
        path.write_bytes(b"")
        with pytest.raises(Unavailable):
            await anext(head.pieces)


async def test_a_name_that_is_no_file_is_not_waited_for(tree: Tree, tmp_path: Path) -> None:
    directory = in_tree(tmp_path)
    (directory / "data").write_bytes(HELLO)
    os.mkfifo(directory / "filename")
    assert (await content_of(tree))[2:] == ("", HELLO)
