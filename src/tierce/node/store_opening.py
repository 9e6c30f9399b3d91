"""A node's store in the cloud, from its settings: for the node itself, and for commands beside it."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tierce.blobs import cloud_owner
from tierce.blobs.catalogue import CLOUD, CLOUD_DATABASES, KIND
from tierce.blobs.credentials import SERVICES, service_options
from tierce.blobs.credentials_file import read_variables
from tierce.blobs.environment import Environment, has_database
from tierce.cloud.bucket import Bucket, open_bucket
from tierce.cloud.pacing import RequestPace
from tierce.core.errors import BadRequest, Corrupt
from tierce.core.limits import DRIVE_REQUESTS_PER_SECOND
from tierce.core.settings import Settings
from tierce.names.lmdb_index import DATABASES
from tierce.node.directory import DataDirectory

_DRIVES = ("aliyun-drive", "dropbox", "gdrive", "koofr", "onedrive", "pcloud", "yandex-disk")
"""Services for people's files, which allow few requests."""


class TakenOver(NamedTuple):
    """A store that was taken over, for whom; not ``is_new`` if it was that node's already."""

    node_id: str
    is_new: bool


def open_store(settings: Settings) -> Bucket:
    """The bucket of the setting ``store``, without asking it anything yet. Raises BadRequest.

    Credentials are those of the setting ``store_credentials_file``, else of the environment, and what
    `tierce auth` has kept for the service.
    """
    service = settings.store.partition("://")[0]
    own: dict[str, str] = {}
    if settings.store_credentials_file is not None:
        own = read_variables(settings.store_credentials_file, service)
    if service in SERVICES:
        options = service_options(service, settings.data, {**os.environ, **own})
        own |= {f"OPENDAL_{service}_{name}".upper(): value for name, value in options.items()}
    return open_bucket(settings.store, own=own, pace=pace_of(settings))


def pace_of(settings: Settings) -> RequestPace:
    """How many requests a second one process of the node may send: each has its share.

    Background work is the agent's alone.
    """
    per_second = settings.store_requests_per_second
    if per_second is None:
        is_drive = settings.store.partition("://")[0] in _DRIVES
        per_second = DRIVE_REQUESTS_PER_SECOND if is_drive else 0.0
    background = settings.store_background_requests_per_second
    return RequestPace(per_second / settings.processes, background_per_second=background)


def check_no_blobs(data: Path, environment: Environment) -> None:
    """Refuse a store for a data directory that has blobs of its own. Raises BadRequest."""
    if any(environment.counts(kind).blobs for kind in ("packed", "files")):
        raise BadRequest(
            f"{data} has blobs on its disk, which a node with a store would not see",
            hint="Start the node without the setting store, or give this one a data directory "
            "of its own and let the two copy the blobs as nodes of one cluster.",
        )


async def check_no_store(data: Path) -> None:
    """Refuse to run without a store where one has the node's blobs. Raises BadRequest."""
    lmdb = data / "lmdb"
    try:
        if not has_database(lmdb, CLOUD):
            return
    except Corrupt:
        return  # whoever serves from it says so
    environment = Environment(lmdb, databases=(*DATABASES, *CLOUD_DATABASES))
    try:
        blobs = environment.counts(KIND).blobs
        url = cloud_owner.place_of(environment).url
    finally:
        await environment.close()
    if blobs:
        raise BadRequest(
            f"the blobs of {data} are in the store {url}, and the setting store is not set",
            hint="Set it as it was, with --store or TIERCE_STORE. For a node that keeps its blobs on "
            "its disk, use an empty data directory, and drain this one.",
        )


@contextlib.contextmanager
def taking_over(settings: Settings, former: str) -> Iterator[TakenOver]:
    """Make the store of the node ``former`` that of the data directory; keep it taken for the block.

    Raises what DataDirectory.open and cloud_owner.take_over do.
    """
    directory = DataDirectory.open(settings.data, settings.node_id, settings.files)
    try:
        node_id = directory.identity.node_id
        yield TakenOver(node_id, asyncio.run(_take_over(settings, node_id, former)))
    finally:
        directory.close()


async def _take_over(settings: Settings, node_id: str, former: str) -> bool:
    bucket = open_store(settings)
    databases = (*DATABASES, *CLOUD_DATABASES)
    environment = Environment(settings.data / "lmdb", databases=databases)
    try:
        check_no_blobs(settings.data, environment)
        return await cloud_owner.take_over(bucket, environment, node_id, former)
    finally:
        await environment.close()
