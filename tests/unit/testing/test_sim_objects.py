"""The observers of named objects tell what a node knows of its cache, and what it was answered."""

from asyncio import sleep as pass_time
from pathlib import Path
from random import Random

import msgspec
import pytest

from tierce.core.digest import Digest
from tierce.core.errors import Unavailable
from tierce.names.record import FULL, NEAR_CACHE_BUCKET, UPSTREAM, Record
from tierce.testing.checkers import Violation
from tierce.testing.memory_upstream import MemoryUpstream
from tierce.testing.sim_node import Setup
from tierce.testing.sim_objects import NameCluster
from tierce.testing.sim_process import run

LIMIT_BYTES = 30_000
LARGE = b"!" * 40_000


class BlindUpstream(MemoryUpstream):
    """Takes everything, and tells nothing while it is ``blind``."""

    blind = False

    async def _pass_time(self, doing: str) -> None:
        if self.blind and doing == "looking":
            raise Unavailable("nothing is told")
        await super()._pass_time(doing)


def test_what_the_upstream_does_not_tell_of_may_be_over_the_limit_until_it_does(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        upstream = BlindUpstream(Random(1))
        cluster = NameCluster(1, 1, tmp_path, upstream=upstream, cache_limit_bytes=LIMIT_BYTES)
        for _ in range(2):
            setup = Setup(cluster.new_name(), upstream=upstream, cache_limit_bytes=LIMIT_BYTES)
            await cluster.add(setup)
        await cluster.form()
        first, second = cluster.nodes.values()
        upstream.blind = True
        await cluster.put_levelled(first, "client", "id", LARGE, FULL, 60.0)
        await pass_time(20)
        cluster.check()
        assert cluster._over_limit() == ["node2 has 40000 bytes cached"]
        upstream.told.clear()  # then nothing excuses it
        with pytest.raises(Violation, match="node2 has 40000 bytes cached"):
            cluster.check()
        upstream.blind = False
        await pass_time(15)
        assert not cluster._over_limit()
        assert Digest.of(LARGE) not in second.disk.blobs
        cluster.check()

    run(story())


def test_a_put_that_lost_to_a_delete_needs_no_content_in_the_upstream(tmp_path: Path) -> None:
    cluster = NameCluster(1, 1, tmp_path, upstream=MemoryUpstream(Random(1)))
    name = NEAR_CACHE_BUCKET, "id"
    write = cluster.history.begin(name, "client", "a", digest=Digest.of(LARGE), level=UPSTREAM)
    kept = Record(
        bucket=name[0],
        key=name[1],
        timestamp=1,
        digest=Digest.of(LARGE),
        level=UPSTREAM,
        is_upstream=True,
    )
    with pytest.raises(Violation, match="the upstream has it not"):
        cluster._check_uploaded(write, kept)
    cluster._check_uploaded(write, msgspec.structs.replace(kept, digest=None, deleted=True))
