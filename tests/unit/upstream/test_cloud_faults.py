"""What an upstream does when the network or the service fails: nothing is claimed, in bounded time."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tierce.cloud.retrying import Patience
from tierce.core.errors import NotFound, Unavailable
from tierce.core.limits import MIB
from tierce.testing.blob_contract import body
from tierce.testing.fault_proxy import FaultProxy, Mode
from tierce.testing.rclone import BUCKET, RcloneServer
from tierce.testing.upstream_contract import KEY, BytesSource, record_of
from tierce.upstream.cloud import CloudUpstream, open_upstream

PART_BYTES = 5 * MIB
LARGE = body(2 * PART_BYTES + 100)
QUICK = Patience(
    attempts=3,
    backoff_min_seconds=0.01,
    backoff_max_seconds=0.05,
    total_seconds=3.0,
    stall_seconds=0.25,
    min_bytes_per_second=50 * MIB,
    circuit_failures=100,
    circuit_seconds=0.2,
)
STEADY = Patience(backoff_min_seconds=0.01, backoff_max_seconds=0.05, stall_seconds=1.0)
"""For what must work in the end, also on a busy machine."""
BOUND_SECONDS = 10.0


@pytest.fixture
async def proxy(s3_server: RcloneServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(s3_server.port).running() as proxy:
        yield proxy


@pytest.fixture
def behind(proxy: FaultProxy, s3_keys: None, prefix: str) -> CloudUpstream:
    """An upstream whose requests go through the proxy. rclone checks no host in signatures."""
    return opened(proxy.endpoint, prefix, QUICK)


@pytest.fixture
def direct(s3_server: RcloneServer, s3_keys: None, prefix: str) -> CloudUpstream:
    """The same upstream, without the proxy."""
    return opened(s3_server.endpoint, prefix, Patience())


@pytest.fixture
def steady(proxy: FaultProxy, s3_keys: None, prefix: str) -> CloudUpstream:
    """One that waits longer for what is behind the proxy."""
    return opened(proxy.endpoint, prefix, STEADY)


def opened(endpoint: str, prefix: str, patience: Patience) -> CloudUpstream:
    url = f"s3://{BUCKET}/{prefix}?endpoint={endpoint}"
    return open_upstream(url, part_bytes=PART_BYTES, patience=patience, has_tags=False)


async def read(upstream: CloudUpstream) -> bytes:
    async with upstream.open(KEY) as found:
        return b"".join([piece async for piece in found.pieces])


async def upload(upstream: CloudUpstream, data: bytes) -> None:
    source = BytesSource(data, is_streamed=True)
    await upstream.upload(record_of(source), source)


ALWAYS = [Mode.REFUSE, Mode.ERROR, Mode.STALL]


@pytest.mark.parametrize("mode", ALWAYS)
@pytest.mark.parametrize("what", ["stat", "open", "delete", "check", "small", "large"])
async def test_what_never_works_is_unavailable_in_bounded_time(
    behind: CloudUpstream, direct: CloudUpstream, proxy: FaultProxy, mode: Mode, what: str
) -> None:
    proxy.harm(mode)
    attempts: dict[str, Callable[[], Awaitable[object]]] = {
        "stat": lambda: behind.stat(KEY),
        "open": lambda: read(behind),
        "delete": lambda: behind.delete(KEY),
        "check": lambda: behind.check(),
        "small": lambda: upload(behind, b"small"),
        "large": lambda: upload(behind, LARGE),
    }
    before = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await attempts[what]()
    assert time.monotonic() - before < BOUND_SECONDS
    assert caught.value.hint
    assert len(caught.value.message) < 400
    assert proxy.harmed >= 1
    with pytest.raises(NotFound):
        await direct.stat(KEY)


@pytest.mark.parametrize("mode", ALWAYS)
async def test_what_fails_twice_and_works_then_is_not_noticed(
    steady: CloudUpstream, proxy: FaultProxy, mode: Mode
) -> None:
    proxy.harm(mode, times=2)
    await upload(steady, b"small")
    assert proxy.times == 0
    proxy.harm(mode, times=1)
    assert await read(steady) == b"small"
    assert proxy.times == 0


async def test_a_part_that_fails_is_sent_again_and_not_the_whole(
    steady: CloudUpstream, proxy: FaultProxy
) -> None:
    proxy.harm(Mode.ERROR, only="PUT", times=2)
    await upload(steady, LARGE)
    assert proxy.times == 0
    puts = [target for method, target in proxy.requests if method == "PUT"]
    assert len(puts) == 3 + 2
    proxy.harm(Mode.NONE)
    assert await read(steady) == LARGE


async def test_a_write_whose_answer_was_lost_is_written_again(
    steady: CloudUpstream, proxy: FaultProxy
) -> None:
    proxy.harm(Mode.LATE_ERROR, only="PUT", times=1)
    await upload(steady, b"small")
    assert await read(steady) == b"small"


async def test_a_write_whose_answers_are_all_lost_claims_nothing(
    behind: CloudUpstream, proxy: FaultProxy
) -> None:
    proxy.harm(Mode.LATE_ERROR, only="PUT")
    with pytest.raises(Unavailable):
        await upload(behind, b"small")


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.STALL_BODY])
async def test_a_body_that_is_cut_once_is_read_on_from_there(
    steady: CloudUpstream, direct: CloudUpstream, proxy: FaultProxy, mode: Mode
) -> None:
    await upload(direct, LARGE)
    proxy.cut_bytes = 3 * MIB
    proxy.harm(mode, only="GET", times=1)
    assert await read(steady) == LARGE
    assert [method for method, _ in proxy.requests] == ["HEAD", "GET", "GET", "HEAD"]


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.STALL_BODY, Mode.WRONG_LENGTH])
@pytest.mark.parametrize("cut_bytes", [0, 1000])
async def test_a_body_that_never_comes_whole_is_unavailable(
    behind: CloudUpstream, direct: CloudUpstream, proxy: FaultProxy, mode: Mode, cut_bytes: int
) -> None:
    data = body(100_000)
    await upload(direct, data)
    proxy.cut_bytes = cut_bytes
    proxy.harm(mode, only="GET")
    behind._can_match = cut_bytes == 0  # else each request gets some bytes further
    before, seen = time.monotonic(), b""
    with pytest.raises(Unavailable):
        async with behind.open(KEY) as found:
            async for piece in found.pieces:
                seen += piece
    assert time.monotonic() - before < BOUND_SECONDS
    assert data.startswith(seen)
    assert len(seen) < len(data)


async def test_a_slow_body_that_makes_progress_is_read_whole(
    steady: CloudUpstream, direct: CloudUpstream, proxy: FaultProxy
) -> None:
    data = body(600_000)
    await upload(direct, data)
    proxy.bytes_per_second = 400_000
    proxy.harm(Mode.SLOW, only="GET")
    before = time.monotonic()
    assert await read(steady) == data
    assert time.monotonic() - before > STEADY.stall_seconds


async def test_an_object_that_changes_while_it_is_read_is_never_mixed(
    steady: CloudUpstream, direct: CloudUpstream, proxy: FaultProxy
) -> None:
    await upload(direct, LARGE)
    proxy.cut_bytes = MIB
    proxy.harm(Mode.CUT, only="GET", times=1)
    seen = b""
    with pytest.raises(Unavailable):
        async with steady.open(KEY) as found:
            await upload(direct, LARGE[::-1])
            async for piece in found.pieces:
                seen += piece
    assert len(seen) < len(LARGE)


async def test_a_dead_upstream_is_left_alone_for_a_while(
    proxy: FaultProxy, s3_keys: None, prefix: str
) -> None:
    patience = Patience(
        attempts=2, backoff_min_seconds=0.01, circuit_failures=4, circuit_seconds=0.3
    )
    upstream = opened(proxy.endpoint, prefix, patience)
    proxy.harm(Mode.ERROR)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await upstream.stat(KEY)
    assert upstream.status()["circuit"] == "open"
    asked = len(proxy.requests)
    for _ in range(20):
        with pytest.raises(Unavailable, match="left alone"):
            await upstream.stat(KEY)
    assert len(proxy.requests) == asked
    proxy.harm(Mode.NONE)
    async with asyncio.timeout(10):
        while True:
            try:
                await upload(upstream, b"back")
            except Unavailable:
                await asyncio.sleep(0.02)
            else:
                break
    status = upstream.status()
    assert (status["circuit"], status["failures_in_a_row"]) == ("closed", 0)
    assert "503" in str(status["last_error"])


async def test_an_upload_that_is_cancelled_while_it_stalls_ends_at_once(
    steady: CloudUpstream, direct: CloudUpstream, proxy: FaultProxy
) -> None:
    proxy.harm(Mode.STALL)
    for data in (b"small", LARGE):
        task = asyncio.create_task(upload(steady, data))
        harmed = proxy.harmed
        async with asyncio.timeout(10):
            while proxy.harmed == harmed:
                await asyncio.sleep(0.01)
        before = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - before < 1.0
        with pytest.raises(NotFound):
            await direct.stat(KEY)


async def test_the_event_loop_runs_on_while_large_content_moves(
    steady: CloudUpstream, proxy: FaultProxy
) -> None:
    longest, last, is_done = 0.0, time.monotonic(), False

    async def watch() -> None:
        nonlocal longest, last
        while not is_done:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            longest, last = max(longest, now - last), now

    watching = asyncio.create_task(watch())
    await upload(steady, LARGE)
    assert await read(steady) == LARGE
    is_done = True
    await watching
    assert longest < 0.5
