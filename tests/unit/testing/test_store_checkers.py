"""Each checker of a store in the cloud is content with what is right, and finds what was planted."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tierce.blobs import catalogue
from tierce.blobs.catalogue import CLOUD_DATABASES, Row
from tierce.blobs.cloud_names import OWNER_PATH, path_of
from tierce.blobs.environment import Environment, WriteBatch
from tierce.blobs.holds import Holds
from tierce.core.digest import Digest
from tierce.core.limits import MIB
from tierce.testing.checkers import Violation
from tierce.testing.sim_bucket import SimService, Stored
from tierce.testing.store_checkers import Doing, Kept, disorder

DATA = b"some bytes"
BLOB = Digest.of(DATA)
PUT = Doing(10.0, 11.0)


class TestKept:
    @pytest.fixture
    def kept(self) -> Kept:
        kept = Kept(SimService(Random(1)))
        kept.body(BLOB, DATA)
        return kept

    def missed(self, kept: Kept) -> bool:
        """Whether it is a violation that the blob is missed from 20 to 21."""
        try:
            kept.was_missed(BLOB, 20.0, 21.0, "not here")
        except Violation:
            return True
        return False

    def test_only_what_was_acknowledged_is_missed(self, kept: Kept) -> None:
        assert not self.missed(kept)
        kept.acknowledged(BLOB, PUT, managed=False, record=False)
        assert self.missed(kept)
        assert list(kept.kept(20.0)) == [BLOB]

    @pytest.mark.parametrize(
        ("removal", "may_miss"),
        [
            (Doing(5.0, 9.0), False),
            (Doing(5.0, 10.5), True),
            (Doing(5.0, math.inf), True),
            (Doing(12.0, 13.0), True),
            (Doing(20.5, 25.0), True),
            (Doing(22.0, 25.0), False),
        ],
    )
    def test_it_may_be_missing_if_it_was_removed_since(
        self, kept: Kept, removal: Doing, may_miss: bool
    ) -> None:
        kept.acknowledged(BLOB, PUT, managed=False, record=False)
        kept.removing(BLOB, removal)
        assert self.missed(kept) is not may_miss

    @pytest.mark.parametrize(("at", "may_miss"), [(9.0, False), (10.5, True), (15.0, True)])
    def test_or_harmed(self, kept: Kept, at: float, may_miss: bool) -> None:
        kept.acknowledged(BLOB, PUT, managed=False, record=False)
        kept.harmed(BLOB, at)
        assert self.missed(kept) is not may_miss

    def test_wrong_bytes_are_found(self, kept: Kept) -> None:
        kept.was_read(BLOB, DATA, 0, whole=True)
        kept.was_read(BLOB, DATA[2:4], 2, whole=False)
        for data, start, whole in [
            (b"other", 0, False),
            (DATA[:4], 0, True),
            (DATA[2:4], 3, False),
        ]:
            with pytest.raises(Violation, match="other bytes"):
                kept.was_read(BLOB, data, start, whole=whole)

    def test_so_is_a_wrong_size(self, kept: Kept) -> None:
        kept.was_sized(BLOB, len(DATA))
        with pytest.raises(Violation, match="has 3 bytes"):
            kept.was_sized(BLOB, 3)

    def test_claimed_blobs_must_not_be_collected(self, kept: Kept) -> None:
        kept.acknowledged(BLOB, PUT, managed=False, record=False)
        with pytest.raises(Violation, match="was collected"):
            kept.collected([BLOB], kept.collecting(Doing(15.0)))
        assert self.missed(kept)

    def test_nor_those_that_records_refer_to(self, kept: Kept) -> None:
        kept.acknowledged(BLOB, PUT, managed=True, record=True)
        with pytest.raises(Violation, match="was collected"):
            kept.collected([BLOB], kept.collecting(Doing(15.0)))
        kept.releasing(BLOB, Doing(15.0, 16.0))
        kept.collected([BLOB], kept.collecting(Doing(17.0)))
        assert not self.missed(kept)

    def test_other_managed_ones_may_be(self, kept: Kept) -> None:
        kept.acknowledged(BLOB, PUT, managed=True, record=False)
        kept.collected([BLOB], kept.collecting(Doing(15.0)))
        assert not self.missed(kept)


class Store:
    """A service and a catalogue that are in order, until a test plants something."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.holds = Holds(directory / "holds")
        self.service = SimService(Random(1))
        (directory / "lmdb").mkdir()
        self.environment = Environment(
            directory / "lmdb", databases=CLOUD_DATABASES, map_bytes=8 * MIB
        )
        self.service.objects[OWNER_PATH] = Stored(b"one", "", 0.0)
        self.hold(DATA)
        self.change(lambda batch: catalogue.put_in(batch, BLOB, Row(10, 1, "", 1), None, None))

    def hold(self, data: bytes, digest: Digest = BLOB) -> None:
        self.service.objects[path_of(digest, "tierce")] = Stored(data, "", 0.0)

    def change(self, change: Callable[[WriteBatch], object]) -> None:
        self.environment.write_here(change)

    def disorder(self) -> list[str]:
        return disorder(self.service, self.environment, self.directory)


class TestDisorder:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = Store(tmp_path)
        yield store
        store.environment._lmdb.close()

    def test_there_is_none_at_first(self, store: Store) -> None:
        assert store.disorder() == []

    def test_a_row_without_an_object(self, store: Store) -> None:
        del store.service.objects[path_of(BLOB, "tierce")]
        assert store.disorder() == [f"{BLOB} has a row and no object"]

    @pytest.mark.parametrize("data", [b"some bytes, and more", b"SOME BYTES"])
    def test_an_object_that_is_bad(self, store: Store, data: bytes) -> None:
        store.hold(data)
        assert store.disorder() == [f"{BLOB} has a row and a bad object"]

    def test_an_object_without_a_row(self, store: Store) -> None:
        store.hold(b"more", Digest.of(b"more"))
        (found,) = store.disorder()
        assert "has no row" in found

    def test_but_for_one_that_is_no_blob(self, store: Store) -> None:
        store.hold(b"other", Digest.of(b"more"))
        assert store.disorder() == []

    def test_counts(self, store: Store) -> None:
        store.change(lambda batch: batch.count(catalogue.KIND, 1, 0))
        (found,) = store.disorder()
        assert "blobs=2" in found

    def test_an_upload_without_an_end(self, store: Store) -> None:
        store.change(lambda batch: catalogue.begin_in(batch, BLOB, catalogue.token(1, 1)))
        assert store.disorder() == [f"an upload of {BLOB} has no end"]

    def test_what_is_left_over(self, store: Store) -> None:
        store.change(lambda batch: catalogue.remove_in(batch, BLOB))
        assert f"{BLOB} is left over" in store.disorder()

    def test_a_strange_object(self, store: Store) -> None:
        store.service.objects["elsewhere"] = Stored(b"", "", 0.0)
        assert store.disorder() == ["elsewhere is nothing of ours"]

    def test_a_lock(self, store: Store) -> None:
        hold = store.holds.share(BLOB)
        assert hold is not None
        assert store.disorder() == [f"{BLOB} is held"]
        store.holds.release(BLOB, hold)
        assert store.disorder() == []
