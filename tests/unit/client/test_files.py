"""Files that go up, and files that come down."""

import asyncio
import fcntl
import os
from pathlib import Path

import pytest
from tests.unit.client.fake_server import FakeServer

from tierce.client import Client
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Conflict, Corrupt, DigestMismatch, NotFound, Unavailable

SMALL = b"tierce"
LARGE = bytes(range(256)) * (3 << 12)  # 3 MiB


@pytest.mark.parametrize("data", [b"", SMALL, LARGE])
async def test_a_file_is_stored(
    server: FakeServer, client: Client, tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "file").write_bytes(data)
    stored = await client.put_file(tmp_path / "file", "sha256")
    assert stored == (Digest.of(data, "sha256"), len(data), True)
    assert server.blobs[stored.digest] == data


async def test_a_large_file_that_is_there_is_not_sent(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    server.add(LARGE)
    assert not (await client.put_file(tmp_path / "file")).created
    assert server.methods() == ["HEAD"]


async def test_a_file_is_sent_again_from_its_start(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    server.add(SMALL)
    server.problems.extend([(404, {}), None, (503, {})])
    stored = await client.put_file(tmp_path / "file")
    assert server.blobs[stored.digest] == LARGE


@pytest.mark.parametrize("change", ["shrink", "rewrite"])
async def test_a_file_that_changes_meanwhile_is_reported(
    server: FakeServer, client: Client, tmp_path: Path, change: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE * 4)

    def disturb() -> None:
        if change == "shrink":
            os.truncate(path, 10)
        else:
            path.write_bytes(bytes(len(LARGE) * 4))

    server.on_upload = disturb
    with pytest.raises(DigestMismatch, match="changed while"):
        await client.put_file(path)
    assert server.blobs == {}


async def test_what_is_no_file_is_refused(client: Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadRequest, match="regular"):
        await client.put_file(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        await client.put_file(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        await client.put_file(tmp_path)


@pytest.mark.parametrize("data", [b"", SMALL, LARGE])
async def test_a_blob_becomes_a_file(
    server: FakeServer, client: Client, tmp_path: Path, data: bytes
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"before")
    calls: list[tuple[int, int | None]] = []
    size = await client.get_file(
        server.add(data), target, progress=lambda *call: calls.append(call)
    )
    assert (size, target.read_bytes()) == (len(data), data)
    assert os.listdir(tmp_path) == ["file"]
    assert not data or calls[-1] == (len(data), len(data))


async def test_a_download_goes_on_across_interruptions(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    digest = server.add(LARGE)
    server.cuts.extend([700_000, 800_000])
    await client.get_file(digest, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == LARGE
    first, second, third = server.starts()
    assert first == 0 < second <= 700_000 < third <= 1_500_000


async def test_a_later_download_goes_on_where_the_first_stopped(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    digest = server.add(LARGE)
    server.cuts.extend([700_000, 0, 0, 0])
    with pytest.raises(Unavailable):
        await client.get_file(digest, tmp_path / "file")
    assert os.listdir(tmp_path) == ["file.part"]
    server.seen.clear()
    await client.get_file(digest, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == LARGE
    assert server.methods() == ["HEAD", "GET"]
    assert 0 < server.starts()[0] <= 700_000
    assert server.seen[1].headers["if-range"] == f'"{digest}"'


async def test_a_complete_part_is_not_fetched_again(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "file.part").write_bytes(LARGE)
    await client.get_file(server.add(LARGE), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == LARGE
    assert server.methods() == ["HEAD"]


async def test_a_part_longer_than_the_blob_is_begun_anew(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "file.part").write_bytes(LARGE)
    await client.get_file(server.add(SMALL), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == SMALL


async def test_wrong_bytes_leave_neither_file_nor_part(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "file.part").write_bytes(b"nonsense")
    with pytest.raises(Corrupt):
        await client.get_file(server.add(LARGE), tmp_path / "file")
    assert os.listdir(tmp_path) == []


async def test_what_is_not_there_leaves_no_part(client: Client, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await client.get_file(Digest.of(SMALL), tmp_path / "file")
    assert os.listdir(tmp_path) == []


async def test_two_downloads_to_one_path_are_kept_apart(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    with (tmp_path / "file.part").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Conflict):
            await client.get_file(server.add(SMALL), tmp_path / "file")
    assert server.seen == []


async def test_a_part_that_is_a_link_is_not_followed(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "victim").write_bytes(b"keep")
    (tmp_path / "file.part").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"):
        await client.get_file(server.add(SMALL), tmp_path / "file")
    assert (tmp_path / "victim").read_bytes() == b"keep"


async def test_a_cancelled_download_leaves_its_part(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    digest = server.add(LARGE)
    begun = asyncio.Event()
    task = asyncio.create_task(
        client.get_file(digest, tmp_path / "file", progress=lambda *_: begun.set())
    )
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await client.get_file(digest, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == LARGE
