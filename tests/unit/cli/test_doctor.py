"""``tierce doctor``: what it prints, and how it ends."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tierce.blobs.environment import Environment
from tierce.cli.doctor import command
from tierce.cli.main import CORRUPT, NOT_FOUND, main
from tierce.core.digest import Digest
from tierce.names.keys import whole_key
from tierce.names.lmdb_index import DATABASES, RECORDS, LmdbIndex
from tierce.names.record import Record
from tierce.node.directory import DataDirectory


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with one large blob in it, laid down by hand in the documented format."""
    directory = DataDirectory.open(tmp_path / "data")
    directory.close()
    return directory.path


def doctor(*words: str) -> Result:
    return CliRunner().invoke(command, words, env={"TIERCE_CONFIG": ""})


def place(data: Path, name: str) -> Path:
    path = data / "files" / "sha1" / name[:2] / name[2:4] / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not what the name says" + bytes(50))
    return path


def test_a_sound_directory_is_told_to_be_well(data: Path) -> None:
    result = doctor("--data", str(data))
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "all is well"


def test_a_bad_blob_is_named_and_ends_with_its_own_code(data: Path) -> None:
    name = "ab" * 20
    place(data, name)
    result = doctor("--data", str(data))
    assert result.exit_code == CORRUPT
    assert f"bad: sha1:{name}" in result.output
    assert "--repair moves them" in result.output


def test_a_repair_moves_the_bad_blob_and_still_says_so(data: Path) -> None:
    path = place(data, "cd" * 20)
    result = doctor("--data", str(data), "--repair")
    assert result.exit_code == CORRUPT
    assert "put them again" in result.output
    assert not path.exists()
    assert doctor("--data", str(data)).exit_code == 0


def test_the_report_is_json_when_asked_for(data: Path) -> None:
    place(data, "ef" * 20)
    report = json.loads(doctor("--data", str(data), "--json").output)
    assert report["healthy"] is False
    assert report["bad"][0]["digest"] == "sha1:" + "ef" * 20


def test_what_is_no_data_directory_is_an_error_with_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--data", str(tmp_path)]) == NOT_FOUND
    assert "node.toml" in capsys.readouterr().err


async def put_record(data: Path, value: bytes | None) -> None:
    """Write a record into the index, and then such bytes in its place."""
    environment = Environment(data / "lmdb", databases=DATABASES)
    record = Record(bucket="bucket", key="key", digest=Digest.of(b"content"))
    await LmdbIndex(environment, "n").write(record, now=1)
    if value is not None:
        key = whole_key("bucket", "key")
        await environment.write(lambda batch: batch.put(RECORDS, key, value))
    await environment.close()


def test_a_damaged_record_is_told_with_what_to_do_and_what_is_lost(data: Path) -> None:
    asyncio.run(put_record(data, b"\x01\xc1"))
    result = doctor("--data", str(data))
    assert result.exit_code == CORRUPT
    told = result.output.splitlines()[-1]
    assert "Stop the node and run `tierce doctor --repair`" in told
    assert "other nodes give these back" in told
    told = doctor("--data", str(data), "--repair").output.splitlines()[-1]
    assert "1 records could not be read and were dropped" in told
    assert "what only this node had is lost" in told
    assert doctor("--data", str(data)).exit_code == 0


def test_after_a_damaged_index_is_moved_away_a_repair_makes_an_empty_one(data: Path) -> None:
    asyncio.run(put_record(data, None))
    index = data / "lmdb" / "data.mdb"
    content = bytearray(index.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 + 10] ^= 0xFF
    index.write_bytes(content)
    result = doctor("--data", str(data))
    assert result.exit_code == CORRUPT
    assert "move lmdb/ away, run `tierce doctor --repair`" in result.output
    (data / "lmdb").rename(data / "lmdb.damaged")
    assert doctor("--data", str(data), "--repair").exit_code == 0
    assert doctor("--data", str(data)).output.splitlines()[-1] == "all is well"
