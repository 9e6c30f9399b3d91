"""``tierce doctor``: read everything in a data directory, say what is wrong, and repair what can be.

What is in a store in the cloud is examined by doctor_store.py, if it is said where that is.

An examination changes nothing, and may run beside the node. A repair needs the directory to itself.
It moves bad copies to quarantine, makes damaged checksum tables anew from good content, and counts
afresh. It never removes bytes. What it can't do is bring back a blob whose only copy is bad.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lmdb.verify import VerifyError
from lmdb.verify import verify as verify_index

from tierce.blobs import catalogue
from tierce.blobs.catalogue import CLOUD, CLOUD_DATABASES
from tierce.blobs.cloud_disk import CloudDisk
from tierce.blobs.cloud_names import Layout
from tierce.blobs.cloud_owner import place_of
from tierce.blobs.environment import Environment, has_database
from tierce.blobs.files import FilesStore
from tierce.blobs.local import Disk, make_directories
from tierce.blobs.packed import PackedStore
from tierce.blobs.space import SpaceGuard
from tierce.blobs.spool import sweep
from tierce.blobs.store import BlobInfo, BlobStore, Counts
from tierce.cloud.bucket import Bucket
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Conflict, Corrupt, NotFound
from tierce.core.limits import DISK_THREADS, LIST_LIMIT_DEFAULT
from tierce.names import checking
from tierce.names.lmdb_index import DATABASES
from tierce.node.directory import read_identity, take_lock
from tierce.node.doctor_store import Cost, StoreDoctor, StoreReport
from tierce.node.store_opening import check_no_blobs


@dataclass
class Report:
    """What was found. ``bad`` are blobs whose copy here is bad; ``stray`` are files of no blob.

    ``in_store`` are those that the catalogue has in a store in the cloud, at ``store_url``; ``store``
    is what was found there, None if that was not examined.

    ``names`` counts the records; a repair makes their index anew and drops ``names_dropped`` records
    that can't be read.
    """

    blobs: int = 0
    bytes: int = 0
    bad: list[tuple[Digest, str]] = field(default_factory=list)
    stray: list[Path] = field(default_factory=list)
    index_problems: list[str] = field(default_factory=list)
    names: int = 0
    name_problems: list[str] = field(default_factory=list)
    names_dropped: int = 0
    counts_off: dict[str, tuple[Counts, Counts]] = field(default_factory=dict)
    in_store: Counts = field(default_factory=lambda: Counts(0, 0))
    store_url: str = ""
    store: StoreReport | None = None
    unfinished: int = 0
    quarantined: int = 0
    repaired: bool = False
    node_runs: bool = False

    @property
    def is_healthy(self) -> bool:
        """Whether no blob is bad and the index is sound. Counts and leftovers harm nothing."""
        return not self.bad and not self.index_problems and not self.name_problems


class StoreWish(NamedTuple):
    """The store in the cloud that is to be examined too; ``on_cost`` is told before what that costs."""

    bucket: Bucket
    layout: Layout
    is_listing_only: bool = False
    on_cost: Callable[[Cost], None] = lambda cost: None


async def examine(
    data: Path,
    *,
    repair: bool,
    files: Path | None = None,
    store: StoreWish | None = None,
    progress: Callable[[int, int], None] = lambda blobs, size: None,
) -> Report:
    """Verify every blob below ``data``. ``progress`` is told blobs and bytes read so far.

    ``files`` is where large blobs are, if not in ``data/files``.

    Raises NotFound where there is no data directory, Conflict if ``repair`` is asked for while a
    node runs on it, Corrupt if it has a format that is not understood. Of a store, what
    StoreDoctor.check raises, and Unavailable.
    """
    node_id = read_identity(data).node_id
    report = Report(repaired=repair)
    try:
        lock_fd: int | None = take_lock(data)
    except Conflict:
        if repair:
            raise
        lock_fd, report.node_runs = None, True
    try:
        if lock_fd is not None:
            report.index_problems = await asyncio.to_thread(_index_problems, data)
            if report.index_problems:
                return report
        if repair:
            make_directories(data, files)
        databases = DATABASES
        if has_database(data / "lmdb", CLOUD):
            databases = (*DATABASES, *CLOUD_DATABASES)
        disk = Disk(
            data,
            files=files,
            space=SpaceGuard(data, reserve_bytes=0),
            environment=Environment(data / "lmdb", databases=databases),
        )
        try:
            if store is not None:
                check_no_blobs(data, disk.environment)
                if CLOUD not in databases:
                    raise BadRequest(
                        f"no node with a store has run on {data}",
                        hint="Start it once: it makes the catalogue from the store's listing.",
                    )
            await _examine_blobs(disk, report, repair, progress)
            await _examine_names(disk.environment, report, repair)
            report.in_store = disk.environment.counts(catalogue.KIND)
            if CLOUD in databases:
                report.store_url = place_of(disk.environment).url
        finally:
            await disk.close()
        if store is not None:
            await _examine_store(data, node_id, store, report, progress)
        _examine_leftovers(data, files or data / "files", report, repair)
    finally:
        if lock_fd is not None:
            os.close(lock_fd)
    return report


async def _examine_blobs(
    disk: Disk, report: Report, repair: bool, progress: Callable[[int, int], None]
) -> None:
    stores: dict[str, PackedStore | FilesStore] = {
        "packed": disk.store.packed,
        "files": disk.store.files,
    }
    for name, store in stores.items():
        counted = Counts(0, 0)
        async for info, problem in _verified(store, repair):
            report.blobs += 1
            report.bytes += info.size
            if problem:
                report.bad.append((info.digest, problem))
            if not (problem and repair):
                counted += Counts(1, info.size)
            progress(report.blobs, report.bytes)
        kept = await store.counts()
        if kept != counted and not report.node_runs:
            report.counts_off[name] = (kept, counted)
            if repair:
                await store.set_counts(counted)


async def _examine_names(environment: Environment, report: Report, repair: bool) -> None:
    found = await asyncio.to_thread(checking.examine, environment)
    report.names = found.records
    report.name_problems = found.problems
    if found.problems and repair:
        report.names_dropped = await environment.write(checking.rebuild)


async def _examine_store(
    data: Path,
    node_id: str,
    store: StoreWish,
    report: Report,
    progress: Callable[[int, int], None],
) -> None:
    disk = CloudDisk(
        data,
        store.bucket,
        layout=store.layout,
        space=SpaceGuard(data, reserve_bytes=0),
        environment=Environment(data / "lmdb", databases=(*DATABASES, *CLOUD_DATABASES)),
    )
    doctor = StoreDoctor(
        disk,
        repair=report.repaired,
        node_runs=report.node_runs,
        is_listing_only=store.is_listing_only,
        progress=progress,
    )
    try:
        await doctor.check(node_id)
        store.on_cost(doctor.cost())
        await doctor.examine()
        report.store = doctor.report
        report.bad += doctor.bad
        kept, counted = await disk.store.counts(), doctor.here
        if kept != counted and not report.node_runs:
            report.counts_off[catalogue.KIND] = (kept, counted)
            if report.repaired:
                await disk.store.set_counts(counted)
    finally:
        await disk.close()
    if not store.is_listing_only:
        report.blobs += doctor.examined.blobs
        report.bytes += doctor.examined.bytes


async def _verified(store: BlobStore, repair: bool) -> AsyncIterator[tuple[BlobInfo, str]]:
    """Each blob of a store with what is wrong with it, several read at a time."""
    after: Digest | None = None
    gate = asyncio.Semaphore(DISK_THREADS)

    async def check(info: BlobInfo) -> tuple[BlobInfo, str] | None:
        async with gate:
            try:
                await store.verify(info.digest, repair=repair)
            except Corrupt as error:
                return info, error.message
            except NotFound:
                return None
            return info, ""

    while page := await store.list_after(after, LIST_LIMIT_DEFAULT):
        for found in await asyncio.gather(*map(check, page)):
            if found is not None:
                yield found
        after = page[-1].digest


def _index_problems(data: Path) -> list[str]:
    """What a structural check of the index finds, without opening it by way of the engine."""
    file = data / "lmdb" / "data.mdb"
    if not file.exists():
        return []
    try:
        return [str(problem) for problem in verify_index(str(file))]  # type: ignore[no-untyped-call]
    except (VerifyError, OSError) as error:
        return [str(error)]


def _examine_leftovers(data: Path, files: Path, report: Report, repair: bool) -> None:
    if not report.node_runs:
        report.unfinished = sweep(data / "tmp") if repair else len(list((data / "tmp").glob("*")))
    report.quarantined = len(list((data / "quarantine").glob("*")))
    for path in files.rglob("*"):
        if path.is_file() and not _is_blob(path, files):
            report.stray.append(path)


def _is_blob(path: Path, files: Path) -> bool:
    parts = path.relative_to(files).parts
    try:
        digest = Digest.parse(f"{parts[0]}:{parts[-1]}")
    except BadRequest:
        return False
    return parts == (digest.algorithm, digest.hex[:2], digest.hex[2:4], digest.hex)
