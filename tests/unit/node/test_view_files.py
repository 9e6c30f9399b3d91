"""The view as a file: what is written is read, what is damaged is not used, and changes are seen."""

import asyncio
import logging
import os
from pathlib import Path

import pytest
from msgspec import structs
from tests.unit.node.fakes import members, running

from tierce.cluster.member import View
from tierce.core.errors import BadRequest, Unavailable
from tierce.core.limits import VIEW_LOOK_SECONDS, VIEW_WAIT_SECONDS, VIEW_WRITE_SECONDS
from tierce.node.runtime import Stop
from tierce.node.view_files import KEPT, LIVE, ViewWriter, first_view, follow, kept_view
from tierce.testing import virtual_time

VIEW = View.of("a", members(3, zone="z", weight=0.5), gone=["c"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path


def write_view(data: Path, view: View) -> None:
    ViewWriter(data).put(view)  # its first one is written at once


def live(data: Path) -> int:
    """How many members the view for workers has."""
    return len(virtual_time.run(first_view(data, Stop())).members)


def test_views_that_follow_soon_are_written_once_and_the_latest_counts(data: Path) -> None:
    async def main() -> list[int]:
        writer = ViewWriter(data)
        lengths = []
        seen: list[View] = []
        async with running(follow(data, seen.append)):
            for count in (3, 1, 2, 1):
                writer.put(View.of("a", members(count)))
            await asyncio.sleep(VIEW_LOOK_SECONDS / 2)
            lengths.append(len(seen[-1].members))
            await asyncio.sleep(VIEW_WRITE_SECONDS + VIEW_LOOK_SECONDS)
            lengths.append(len(seen[-1].members))
        assert len(seen) == 2
        return lengths

    assert virtual_time.run(main()) == [3, 1]


def test_a_flush_writes_what_waits(data: Path) -> None:
    async def main() -> None:
        writer = ViewWriter(data)
        writer.put(VIEW)
        writer.put(View.of("a", members(1)))
        writer.flush()

    virtual_time.run(main())
    assert live(data) == 1


def test_without_a_view_a_flush_writes_nothing(data: Path) -> None:
    ViewWriter(data).flush()
    assert not (data / LIVE).exists()


def test_the_members_are_kept_anew_only_when_there_are_others(data: Path) -> None:
    async def main() -> None:
        writer = ViewWriter(data)
        writer.put(VIEW)
        kept = (data / KEPT).stat().st_ino
        writer.put(View.of("a", [structs.replace(each, incarnation=5) for each in VIEW.members]))
        writer.flush()
        assert (data / KEPT).stat().st_ino == kept
        writer.put(View.of("a", members(2)))
        writer.flush()

    virtual_time.run(main())
    found = kept_view(data)
    assert found is not None
    assert len(found.members) == 2


def test_members_that_could_not_be_kept_are_kept_with_the_next_view(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    writer = ViewWriter(data)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        writer.put(VIEW)
    assert kept_view(data) is None
    writer.flush()
    assert kept_view(data) == VIEW


def test_a_view_that_was_written_is_kept(data: Path) -> None:
    write_view(data, VIEW)
    assert kept_view(data) == VIEW


def test_a_view_that_was_written_is_the_first_that_workers_get(data: Path) -> None:
    write_view(data, VIEW)
    assert virtual_time.run(first_view(data, Stop())) == VIEW


def test_no_temporary_file_is_left(data: Path) -> None:
    write_view(data, VIEW)
    assert sorted(path.name for path in data.rglob("*")) == ["members", "run", "view"]


def test_nothing_kept_is_no_view_and_no_warning(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert kept_view(data) is None
    assert caplog.records == []


@pytest.mark.parametrize("damage", [b"", b"\x01", b"\x02\x93", b"\x01garbage"], ids=repr)
def test_a_damaged_kept_file_is_ignored_with_a_warning(
    data: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    (data / KEPT).write_bytes(damage)
    assert kept_view(data) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "is not used" in record.message


def test_any_cut_of_a_kept_file_is_ignored(data: Path) -> None:
    write_view(data, VIEW)
    whole = (data / KEPT).read_bytes()
    for length in range(len(whole)):
        (data / KEPT).write_bytes(whole[:length])
        assert kept_view(data) is None


def test_a_kept_file_that_can_not_be_read_is_ignored_with_a_warning(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (data / KEPT).mkdir()
    assert kept_view(data) is None
    assert len(caplog.records) == 1


def test_a_full_disk_is_logged_and_the_old_view_stays(
    data: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_view(data, VIEW)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    write_view(data, View.of("a", members(1)))
    assert kept_view(data) == VIEW
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "No space left on device" in record.message
    assert virtual_time.run(first_view(data, Stop())) == View.of("a", members(1))


def test_a_directory_that_is_gone_is_logged(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "run").rmdir()
    write_view(data, VIEW)
    assert len(caplog.records) == 1
    assert kept_view(data) == VIEW


def test_workers_wait_for_the_agents_first_view(data: Path) -> None:
    async def main() -> View:
        waiting = asyncio.create_task(first_view(data, Stop()))
        await asyncio.sleep(VIEW_LOOK_SECONDS)
        write_view(data, VIEW)
        return await waiting

    assert virtual_time.run(main()) == VIEW


def test_workers_give_up_waiting_for_the_agent_after_a_while(data: Path) -> None:
    async def main() -> None:
        with pytest.raises(Unavailable, match="the agent did not start"):
            await first_view(data, Stop())
        assert asyncio.get_running_loop().time() == pytest.approx(VIEW_WAIT_SECONDS)

    virtual_time.run(main())


def test_the_order_to_stop_ends_the_wait(data: Path) -> None:
    async def main() -> None:
        stop = Stop()
        stop.now("enough")
        with pytest.raises(Unavailable, match="stops before"):
            await first_view(data, stop)
        assert asyncio.get_running_loop().time() == 0.0

    virtual_time.run(main())


def test_a_first_view_of_another_version_is_told(data: Path) -> None:
    (data / LIVE).write_bytes(b"\x09")
    with pytest.raises(BadRequest, match="version 9"):
        virtual_time.run(first_view(data, Stop()))


def test_every_change_is_seen_once(data: Path) -> None:
    async def main() -> None:
        seen: list[View] = []
        write_view(data, VIEW)
        async with running(follow(data, seen.append)):
            await asyncio.sleep(3 * VIEW_LOOK_SECONDS)
            for count in (1, 2, 3):
                write_view(data, View.of("a", members(count)))
                await asyncio.sleep(1.5 * VIEW_LOOK_SECONDS)
        assert [len(view.members) for view in seen] == [3, 1, 2, 3]

    virtual_time.run(main())


def test_after_a_damaged_view_the_next_good_one_is_seen(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        seen: list[View] = []
        async with running(follow(data, seen.append)):
            await asyncio.sleep(VIEW_LOOK_SECONDS / 2)  # there is none yet
            (data / LIVE).write_bytes(b"damaged")
            await asyncio.sleep(VIEW_LOOK_SECONDS)
            write_view(data, VIEW)
            await asyncio.sleep(VIEW_LOOK_SECONDS)
        assert seen == [VIEW]

    virtual_time.run(main())
    assert all("the view can't be read" in record.message for record in caplog.records)
