"""A node's store in the cloud, from its settings: for the node itself, and for commands beside it."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tierce.blobs import cloud_owner
from tierce.blobs.catalogue import CLOUD_DATABASES
from tierce.blobs.credentials import SERVICES, service_options
from tierce.blobs.credentials_file import read_variables
from tierce.blobs.environment import Environment
from tierce.cloud.bucket import Bucket, open_bucket
from tierce.core.errors import BadRequest
from tierce.core.settings import Settings
from tierce.names.lmdb_index import DATABASES
from tierce.node.directory import DataDirectory
from tierce.node.store_pacing import pace_of


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


def check_no_blobs(data: Path, environment: Environment) -> None:
    """Refuse a store for a data directory that has blobs of its own. Raises BadRequest."""
    if any(environment.counts(kind).blobs for kind in ("packed", "files")):
        raise BadRequest(
            f"{data} has blobs on its disk, which a node with a store would not see",
            hint="Start the node without the setting store, or give this one a data directory "
            "of its own and let the two copy the blobs as nodes of one cluster.",
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
