"""The directories of a read cache: each is one process's, and everyone's to read."""

import os
from pathlib import Path

import pytest

from tierce.blobs import cache_shelves
from tierce.blobs.cache_shelves import Place, Shelf, Shelves, Tally


def test_shelves_that_nobody_has_any_more_are_swept(tmp_path: Path) -> None:
    for name in ("0", "1", "2", "12345"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "blake3-aa").write_bytes(b"1")
    (tmp_path / "stray").write_bytes(b"")
    cache_shelves.sweep(tmp_path, 2)
    assert {each.name for each in tmp_path.iterdir()} == {"0", "1"}
    cache_shelves.sweep(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []
    cache_shelves.sweep(tmp_path / "none", 0)


def test_a_node_can_do_without_a_directory_for_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").touch()
    cache_shelves.sweep(tmp_path / "cache", 2)
    assert "can't be used as a cache: Not a directory" in caplog.text


def test_one_process_at_a_time_has_a_shelf(tmp_path: Path) -> None:
    shelf = Shelf.take(tmp_path / "0", 0)
    assert shelf is not None
    assert Shelf.take(tmp_path / "0", 0) is None
    shelf.tell(Tally(1, 2, 3))
    shelf.close()
    again = Shelf.take(tmp_path / "0", 0)
    assert again is not None
    again.close()


def test_a_use_spares_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def untimed(path: str, flags: int, mode: int = 0o777) -> int:
        """As where the file system keeps no times of access."""
        return real(path, flags | getattr(os, "O_NOATIME", 0), mode)

    monkeypatch.setattr(os, "open", untimed)
    shelf = Shelf.take(tmp_path / "0", 0)
    assert shelf is not None
    assert shelf.write("a/0-1", b"a")
    assert shelf.write("b", b"b")
    assert Shelves(tmp_path, 1).read([Place("a/0-1")], lambda data: True, None)
    assert [each.name for each in shelf.remove_unused(["a/0-1", "b", "c"])] == ["a/0-1"]
    assert [each.name for each in shelf.listing()] == ["a/0-1"]
    assert shelf.remove_unused(["a/0-1"]) == []
    assert [each.name for each in (tmp_path / "0").iterdir()] == ["lock"]
    shelf.close()


def test_who_lost_its_shelf_writes_no_more(tmp_path: Path) -> None:
    shelf = Shelf.take(tmp_path / "0", 0)
    assert shelf is not None
    (tmp_path / "0").rename(tmp_path / "gone")
    other = Shelf.take(tmp_path / "0", 0)
    assert other is not None
    with pytest.raises(OSError, match="removed"):
        shelf.write("a", b"a")
    assert other.listing() == []
    shelf.close()
    other.close()


def test_a_blob_that_is_dropped_as_its_piece_is_written_is_no_failure(tmp_path: Path) -> None:
    shelf = Shelf.take(tmp_path / "0", 0)
    assert shelf is not None
    (tmp_path / "0" / "a").write_bytes(b"a file of that name")
    assert not shelf.write("a/0-1", b"a")
    assert [each.name for each in shelf.listing()] == ["a"]
    shelf.close()
