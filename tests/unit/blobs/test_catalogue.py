"""The rows of the catalogue: those of earlier versions too, and what is written down of a proof."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tierce.blobs import catalogue
from tierce.blobs.catalogue import CLOUD, CLOUD_DATABASES, Row
from tierce.blobs.environment import Environment
from tierce.blobs.marks import key_of
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt
from tierce.testing.blob_contract import write_now

DIGEST = Digest.of(b"blob")
ROW = Row(4, 1000, "tag", 2000)


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    (tmp_path / "lmdb").mkdir()
    environment = Environment(tmp_path / "lmdb", databases=CLOUD_DATABASES)
    yield environment
    await environment.close()


def row_now(environment: Environment) -> Row | None:
    with environment.snapshot() as batch:
        return catalogue.row_in(batch, DIGEST)


def write_value(environment: Environment, value: bytes) -> None:
    write_now(environment, lambda batch: batch.put(CLOUD, key_of(DIGEST), value))


async def put(environment: Environment, row: Row) -> None:
    await environment.write(lambda batch: catalogue.put_in(batch, DIGEST, row, None, None))


async def test_a_row_is_read_back(environment: Environment) -> None:
    await put(environment, ROW)
    assert row_now(environment) == ROW


@pytest.mark.parametrize(("told", "tag"), [(b'"tag"', "tag"), (b"tag", "tag"), (b"", "")])
async def test_a_row_of_version_1_was_proved_when_it_was_put(
    environment: Environment, told: bytes, tag: str
) -> None:
    write_value(environment, bytes([1]) + (4).to_bytes(8) + (1000).to_bytes(8) + told)
    assert row_now(environment) == Row(4, 1000, tag, 1000)
    assert catalogue.listed(environment, None, 10) == [(DIGEST, 4)]


async def test_a_row_of_a_later_version_is_not_guessed_at(environment: Environment) -> None:
    write_value(environment, bytes([3]) + bytes(24))
    with pytest.raises(Corrupt, match="version 3"):
        row_now(environment)


async def test_a_proof_is_written_down_only_for_the_object_that_was_read(
    environment: Environment,
) -> None:
    await put(environment, ROW)
    await environment.write(lambda batch: catalogue.prove_in(batch, DIGEST, ROW, "new", 3000))
    assert row_now(environment) == Row(4, 1000, "new", 3000)
    again = Row(4, 5000, "other", 5000)
    await put(environment, again)
    await environment.write(lambda batch: catalogue.prove_in(batch, DIGEST, ROW, "late", 6000))
    assert row_now(environment) == again
    await environment.write(lambda batch: catalogue.remove_in(batch, DIGEST))
    await environment.write(lambda batch: catalogue.prove_in(batch, DIGEST, again, "late", 6000))
    assert row_now(environment) is None
