"""The doctor examines a store in the cloud: what is missing, bad or unknown there, and repairs it."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from tierce.blobs import catalogue
from tierce.blobs.catalogue import CLOUD_DATABASES, Row
from tierce.blobs.cloud_disk import CloudDisk
from tierce.blobs.cloud_names import OWNER_PATH, path_of
from tierce.blobs.environment import Environment
from tierce.blobs.local import Disk
from tierce.blobs.space import SpaceGuard
from tierce.blobs.store import Counts
from tierce.cloud.bucket import Entry, open_bucket
from tierce.cloud.retrying import Patience
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Conflict
from tierce.core.limits import CLOUD_WHOLE_READ_BYTES
from tierce.names.lmdb_index import DATABASES
from tierce.node.directory import DataDirectory
from tierce.node.doctor import Report, StoreWish, examine
from tierce.node.doctor_store import Cost, StoreDoctor, StoreReport
from tierce.testing.blob_contract import body
from tierce.testing.cloud_nodes import cloud_disk

SMALL, OTHER, LARGE = b"small", b"another", body(CLOUD_WHOLE_READ_BYTES + 5)


class Patient:
    """A cloud node that is stopped, and its bucket."""

    def __init__(self, root: Path) -> None:
        self.data = root / "data"
        self.root = root / "bucket"
        self.root.mkdir()
        self.bucket = open_bucket(f"file://{self.root}", patience=Patience(attempts=1))

    def disk(self) -> CloudDisk:
        return cloud_disk(self.data, self.bucket, databases=(*DATABASES, *CLOUD_DATABASES))

    async def run(self, work: Callable[[CloudDisk], Awaitable[None]]) -> None:
        """Let the node run for a moment."""
        directory = DataDirectory.open(self.data, "one")
        disk = self.disk()
        try:
            await disk.prepare("one")
            await work(disk)
        finally:
            await disk.close()
            directory.close()

    async def examine(
        self, *, repair: bool = False, listing_only: bool = False
    ) -> tuple[Report, StoreReport]:
        wish = StoreWish(self.bucket, "tierce", listing_only)
        report = await examine(self.data, repair=repair, store=wish)
        assert report.store is not None
        return report, report.store

    def path(self, data: bytes) -> Path:
        return self.root / path_of(Digest.of(data), "tierce")


async def fill(disk: CloudDisk) -> None:
    for data in (SMALL, OTHER, LARGE):
        await put(disk, data)


async def put(disk: CloudDisk, data: bytes) -> None:
    async with disk.spooler.holding(data, "blake3") as spool:
        await disk.store.put(spool)


@pytest.fixture
async def patient(tmp_path: Path) -> Patient:
    patient = Patient(tmp_path)
    await patient.run(fill)
    return patient


async def test_a_sound_store_is_healthy_and_all_of_it_was_read(patient: Patient) -> None:
    report, store = await patient.examine()
    assert report.is_healthy
    assert not report.counts_off
    assert (report.blobs, report.bytes) == (3, len(SMALL + OTHER + LARGE))
    assert store.objects == 3
    assert store.read_bytes >= len(SMALL + OTHER + LARGE)
    assert (store.unknown, store.strange, store.leftovers) == ([], [], 0)


async def test_the_cost_is_told_before(patient: Patient) -> None:
    told: list[Cost] = []
    wish = StoreWish(patient.bucket, "tierce", on_cost=told.append)
    await examine(patient.data, repair=False, store=wish)
    assert told[0].bytes == len(SMALL + OTHER + LARGE)
    assert told[0].requests >= 3
    await examine(patient.data, repair=False, store=wish._replace(is_listing_only=True))
    assert told[1].bytes == 0
    assert told[1].requests < told[0].requests


async def test_without_a_store_it_is_said_what_was_not_examined(patient: Patient) -> None:
    report = await examine(patient.data, repair=False)
    assert report.store is None
    assert report.in_store.blobs == 3
    assert report.store_url == patient.bucket.shown


@pytest.mark.parametrize("listing_only", [False, True])
async def test_a_missing_object_is_told_and_its_row_removed(
    patient: Patient, listing_only: bool
) -> None:
    patient.path(OTHER).unlink()
    report, _ = await patient.examine(listing_only=listing_only)
    assert report.bad == [(Digest.of(OTHER), "it is missing in the store")]
    assert (await patient.examine(listing_only=listing_only))[0].bad == report.bad
    report, _ = await patient.examine(repair=True, listing_only=listing_only)
    assert len(report.bad) == 1
    report, _ = await patient.examine(listing_only=listing_only)
    assert report.is_healthy
    assert report.in_store.blobs == 2
    assert not report.counts_off


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_a_bad_object_is_found_by_reading_and_set_aside(
    patient: Patient, data: bytes
) -> None:
    bad = data[:-1] + b"!"
    patient.path(data).write_bytes(bad)
    assert (await patient.examine(listing_only=True))[0].is_healthy
    report, _ = await patient.examine()
    assert [digest for digest, _ in report.bad] == [Digest.of(data)]
    assert patient.path(data).read_bytes() == bad
    await patient.examine(repair=True)
    report, store = await patient.examine()
    assert report.is_healthy
    assert (store.objects, report.quarantined, store.leftovers) == (2, 1, 0)
    kept = [each.read_bytes() for each in (patient.data / "quarantine").iterdir()]
    kept += [each.read_bytes() for each in (patient.root / "quarantine").glob("*")]
    assert bad in kept


async def test_an_object_of_another_size_is_found_by_the_listing(patient: Patient) -> None:
    patient.path(LARGE).write_bytes(LARGE[:-1])
    report, _ = await patient.examine(listing_only=True)
    ((digest, problem),) = report.bad
    assert digest == Digest.of(LARGE)
    assert f"{len(LARGE) - 1} bytes in the store instead of {len(LARGE)}" in problem


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_a_wrong_size_in_the_catalogue_costs_no_good_object(
    patient: Patient, data: bytes
) -> None:
    async def damage(disk: CloudDisk) -> None:
        row = Row(len(data) - 1, 1, "", 0)
        await disk.environment.write(
            lambda batch: catalogue.put_in(batch, Digest.of(data), row, None, None),
        )

    await patient.run(damage)
    report, _ = await patient.examine(repair=True)
    assert [digest for digest, _ in report.bad] == [Digest.of(data)]
    assert patient.path(data).read_bytes() == data
    report, _ = await patient.examine()
    assert report.is_healthy
    assert report.in_store == Counts(3, len(SMALL + OTHER + LARGE))


async def test_an_unknown_object_is_told_and_adopted(patient: Patient) -> None:
    patient.path(b"unknown").parent.mkdir(parents=True, exist_ok=True)
    patient.path(b"unknown").write_bytes(b"unknown")
    for listing_only in (True, False):
        report, store = await patient.examine(listing_only=listing_only)
        assert report.is_healthy
        assert store.unknown == [Digest.of(b"unknown")]
    report, store = await patient.examine(repair=True)
    assert store.adopted == 1
    assert not report.counts_off
    report, store = await patient.examine()
    assert (report.blobs, store.unknown) == (4, [])


async def test_what_is_no_blobs_is_told_and_left_alone(patient: Patient) -> None:
    wrong = patient.path(b"something")
    wrong.parent.mkdir(parents=True, exist_ok=True)
    wrong.write_bytes(b"something else")
    note = wrong.with_name("note.txt")
    note.write_bytes(b"hello")
    for repair in (False, True):
        report, store = await patient.examine(repair=repair)
        assert report.is_healthy
        assert sorted(store.strange) == sorted(
            str(each.relative_to(patient.root)) for each in (wrong, note)
        )
    assert wrong.exists()
    assert note.exists()


async def test_remainders_are_told_and_seen_to(patient: Patient) -> None:
    digest = Digest.of(SMALL)
    part = patient.path(SMALL).with_name(f"{digest.hex}.tierce-part-{'ab' * 8}")

    async def leave(disk: CloudDisk) -> None:
        await disk.environment.write(lambda batch: catalogue.remove_in(batch, digest))
        name = catalogue.token(os.getpid(), 1)
        await disk.environment.write(lambda batch: catalogue.begin_in(batch, Digest.of(b"x"), name))
        part.write_bytes(b"half")

    await patient.run(leave)
    report, store = await patient.examine()
    assert report.is_healthy
    assert (store.leftovers, store.unfinished, len(store.parts)) == (1, 1, 1)
    assert store.unknown == []
    await patient.examine(repair=True)
    assert not patient.path(SMALL).exists()
    assert not part.exists()
    _, store = await patient.examine()
    assert (store.unfinished, store.parts) == (0, [])
    # An upload that was broken off may still be carried out: it is looked at again in a minute.
    assert store.leftovers == 1


async def test_counts_that_are_off_are_told_and_put_right(patient: Patient) -> None:
    async def spoil(disk: CloudDisk) -> None:
        await disk.environment.write(lambda batch: batch.set_counts("cloud", Counts(9, 9)))

    await patient.run(spoil)
    right = Counts(3, len(SMALL + OTHER + LARGE))
    report, _ = await patient.examine(listing_only=True)
    assert report.counts_off == {"cloud": (Counts(9, 9), right)}
    await patient.examine(repair=True)
    assert not (await patient.examine())[0].counts_off


async def test_beside_a_node_what_is_under_way_is_not_told(patient: Patient) -> None:
    part = patient.path(OTHER).with_name(f"{Digest.of(OTHER).hex}.tierce-part-{'ab' * 8}")

    async def begin(disk: CloudDisk) -> None:
        name = catalogue.token(2**30, 1)
        digest = Digest.of(b"upload")
        await disk.environment.write(lambda batch: catalogue.begin_in(batch, digest, name))
        patient.path(b"upload").parent.mkdir(parents=True, exist_ok=True)
        patient.path(b"upload").write_bytes(b"upload")
        part.write_bytes(b"half")

    await patient.run(begin)
    directory = DataDirectory.open(patient.data)  # whoever has its lock is the node
    with pytest.raises(Conflict):
        await patient.examine(repair=True)
    report, store = await patient.examine()
    directory.close()
    assert report.node_runs
    assert report.is_healthy
    assert (store.unknown, store.strange, store.parts, store.unfinished) == ([], [], [], 0)
    assert part.exists()


async def beside(disk: CloudDisk) -> StoreDoctor:
    """What is found beside a node that runs, in this same process."""
    doctor = StoreDoctor(
        disk,
        repair=False,
        node_runs=True,
        is_listing_only=False,
        progress=lambda blobs, size: None,
    )
    await doctor.check("one")
    await doctor.examine()
    return doctor


async def test_what_is_put_or_deleted_after_the_listing_is_not_told(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = patient.bucket.list
    changed: list[str] = []

    async def work(disk: CloudDisk) -> None:
        async def late(prefix: str) -> AsyncGenerator[Entry, None]:
            found = [entry async for entry in listed(prefix)]
            if any(entry.path.endswith(Digest.of(SMALL).hex) for entry in found):
                assert await disk.store.delete(Digest.of(SMALL))
                await put(disk, b"came since")
                changed.append(prefix)
            for entry in found:
                yield entry

        monkeypatch.setattr(patient.bucket, "list", late)
        doctor = await beside(disk)
        assert changed
        assert (doctor.bad, doctor.report.unknown) == ([], [])

    await patient.run(work)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_what_is_deleted_while_it_is_read_is_not_told(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    read = patient.bucket.read
    deleted: list[bool] = []

    async def work(disk: CloudDisk) -> None:
        async def late(path: str, start: int, length: int) -> bytes:
            if path.endswith(Digest.of(data).hex) and not deleted:
                deleted.append(await disk.store.delete(Digest.of(data)))
            return await read(path, start, length)

        monkeypatch.setattr(patient.bucket, "read", late)
        doctor = await beside(disk)
        assert deleted == [True]
        assert doctor.bad == []

    await patient.run(work)


async def test_what_is_put_while_it_is_looked_for_is_not_told(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient.path(b"upload").parent.mkdir(parents=True, exist_ok=True)
    patient.path(b"upload").write_bytes(b"upload")
    look = patient.bucket.look
    looked: list[str] = []

    async def work(disk: CloudDisk) -> None:
        async def late(path: str) -> Entry:
            if path.endswith(Digest.of(b"upload").hex):
                looked.append(path)
                await put(disk, b"upload")
            return await look(path)

        monkeypatch.setattr(patient.bucket, "look", late)
        doctor = await beside(disk)
        assert looked
        assert doctor.report.unknown == []

    await patient.run(work)


async def test_a_store_for_blobs_on_a_disk_is_refused(tmp_path: Path) -> None:
    patient = Patient(tmp_path)
    directory = DataDirectory.open(patient.data)
    disk = Disk(patient.data, space=SpaceGuard(patient.data, reserve_bytes=0))
    async with disk.spooler.holding(SMALL, "blake3") as spool:
        await disk.store.put(spool)
    await disk.close()
    directory.close()
    with pytest.raises(BadRequest, match="has blobs on its disk"):
        await patient.examine()


async def test_an_examination_of_a_disk_makes_no_catalogue(tmp_path: Path) -> None:
    DataDirectory.open(tmp_path / "data").close()
    report = await examine(tmp_path / "data", repair=False)
    assert report.store_url == ""
    (tmp_path / "bucket").mkdir()
    wish = StoreWish(open_bucket(f"file://{tmp_path / 'bucket'}"), "tierce")
    with pytest.raises(BadRequest, match="no node with a store has run"):
        await examine(tmp_path / "data", repair=False, store=wish)
    environment = Environment(tmp_path / "data" / "lmdb")
    with environment.read() as transaction, transaction.cursor() as cursor:
        names = [bytes(key) for key in cursor.iternext(values=False)]
    await environment.close()
    assert b"cloud" not in names
    assert b"blobs" in names


async def test_another_nodes_store_is_refused(patient: Patient) -> None:
    (patient.root / OWNER_PATH).write_text('{"version": 1, "node_id": "two"}')
    with pytest.raises(BadRequest, match="belongs to the node two"):
        await patient.examine(repair=True)


async def test_an_emptied_store_is_refused(patient: Patient) -> None:
    (patient.root / OWNER_PATH).unlink()
    with pytest.raises(BadRequest, match="belongs to no node"):
        await patient.examine(repair=True)


async def test_a_catalogue_of_another_layout_is_refused(patient: Patient) -> None:
    wish = StoreWish(patient.bucket, "cask")
    with pytest.raises(BadRequest, match="the catalogue is not of the store"):
        await examine(patient.data, repair=True, store=wish)
