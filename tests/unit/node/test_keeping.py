"""Why a blob is kept: what its mark and the records of all its names say together."""

from pathlib import Path

import pytest
from tests.unit.node.fakes import members, placed, spooler

from tierce.blobs.memory import MemoryStore
from tierce.cluster.healing import Keep
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt
from tierce.core.limits import REFERENCES_COUNT
from tierce.names.memory import MemoryIndex
from tierce.names.record import FULL, LOCAL, NO_LEVEL, UPSTREAM, Record
from tierce.node.keeping import Keeping

DATA = b"data"
DIGEST = Digest.of(DATA)
RING, LEVEL, BOTH, NEITHER = (
    Keep(True, False),
    Keep(False, True),
    Keep(True, True),
    Keep(False, False),
)

# The levels of the records that name a managed blob, and why it is kept.
MANAGED = [
    ([], NEITHER),
    ([NO_LEVEL], RING),
    ([LOCAL], LEVEL),
    ([UPSTREAM], LEVEL),
    ([FULL], LEVEL),
    ([NO_LEVEL, LOCAL], BOTH),
    # More records than anyone looks at: it is looked after, and stays, whatever the others say.
    ([LOCAL] * REFERENCES_COUNT + [NO_LEVEL], BOTH),
    ([NO_LEVEL] * REFERENCES_COUNT + [LOCAL], BOTH),
]


class Bench:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.index = MemoryIndex("a")
        self.keeping = Keeping(self.store, self.index)

    async def put(self, directory: Path, *, managed: bool) -> None:
        async with spooler(directory).holding(DATA, "blake3") as spool:
            await self.store.put(spool, managed=managed)

    async def name(self, levels: list[int]) -> None:
        for number, level in enumerate(levels):
            draft = Record(bucket="bucket", key=f"{number:05}", digest=DIGEST, level=level)
            await self.index.write(draft, now=number)


@pytest.mark.parametrize(("levels", "expected"), MANAGED)
async def test_a_managed_blob_is_kept_for_the_sake_of_its_records(
    tmp_path: Path, levels: list[int], expected: Keep
) -> None:
    bench = Bench()
    await bench.put(tmp_path, managed=True)
    await bench.name(levels)
    assert bench.keeping.keeps([DIGEST]) == [expected]


@pytest.mark.parametrize("levels", [[], [NO_LEVEL], [LOCAL], [FULL]])
async def test_what_somebody_put_without_a_name_is_kept_by_the_ring_in_any_case(
    tmp_path: Path, levels: list[int]
) -> None:
    bench = Bench()
    await bench.put(tmp_path, managed=False)
    await bench.name(levels)
    assert bench.keeping.keeps([DIGEST])[0].by_ring


async def test_a_deleted_object_keeps_nothing(tmp_path: Path) -> None:
    bench = Bench()
    await bench.put(tmp_path, managed=True)
    await bench.name([NO_LEVEL])
    await bench.index.write(Record(bucket="bucket", key="00000", deleted=True), now=5)
    assert bench.keeping.keeps([DIGEST]) == [NEITHER]


OWNER = next(
    placement
    for placement in (placed(name, members(5, replication=2)) for name in "abcde")
    if placement.me in placement.owners(DIGEST)
)
STRANGER = next(
    placement
    for placement in (placed(name, members(5, replication=2)) for name in "abcde")
    if placement.me not in placement.owners(DIGEST)
)


# Levels of its records, whether a mark was left: wanted by an owner, and by another node.
WANTED = [
    ([], False, True, False),
    ([NO_LEVEL], True, True, False),
    ([NO_LEVEL, LOCAL], False, True, False),
    ([FULL], False, True, True),
    ([LOCAL], False, False, False),
    ([LOCAL], True, True, True),
    ([UPSTREAM], True, True, True),
]


@pytest.mark.parametrize(("levels", "has_mark", "by_owner", "by_stranger"), WANTED)
async def test_what_is_fetched_when_it_is_missing(
    levels: list[int], has_mark: bool, by_owner: bool, by_stranger: bool
) -> None:
    bench = Bench()
    await bench.name(levels)
    if has_mark:
        bench.store.marks.add(DIGEST)
    assert bench.keeping.wants(DIGEST, OWNER) == by_owner
    assert bench.keeping.wants(DIGEST, STRANGER) == by_stranger


async def test_a_copy_made_again_is_managed_if_it_has_a_name_and_else_what_it_was() -> None:
    bench = Bench()
    assert bench.keeping.mark_for(DIGEST) is None
    await bench.name([NO_LEVEL])
    assert bench.keeping.mark_for(DIGEST) is True


class DamagedIndex(MemoryIndex):
    """One in which a record is damaged that may name any blob."""

    def refers(self, digest: Digest) -> list[Record]:
        raise Corrupt("a record is damaged")


async def test_a_blob_that_a_damaged_record_may_name_is_looked_after_and_stays(
    tmp_path: Path,
) -> None:
    bench = Bench()
    await bench.put(tmp_path, managed=True)
    keeping = Keeping(bench.store, DamagedIndex("a"))
    assert keeping.keeps([DIGEST]) == [BOTH]
    assert keeping.mark_for(DIGEST) is True
