"""The lists of blob servers, merged."""

import errno
import io
import random
import tempfile
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.client.sos import SosAnswer, SosClient
from tierce.client.sos_replicating import COPIES_AT_ONCE, Lacking, Lists, Replication, _Held
from tierce.client.uploads import Progress
from tierce.client.wire import Body
from tierce.core.errors import Full, TierceError, Unavailable
from tierce.testing.sos_servers import PERL, SosServer, serving_sos


class Listing(SosClient):
    """A client of servers that are lists of ids."""

    def __init__(self, lists: dict[str, list[str]]) -> None:
        super().__init__()
        self._lists = lists

    async def ids(self, url: str) -> AsyncIterator[str]:  # type: ignore[override]
        for each in self._lists[url]:
            yield each


@given(
    st.dictionaries(
        st.sampled_from("abcde"),
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=30),
    )
)
async def test_merging_finds_all_holders_of_all_ids(given_lists: dict[str, list[str]]) -> None:
    with closing(Lists()) as lists:
        for url in given_lists:
            await lists.fetch(Listing(given_lists), url)
        merged = list(lists.merged())
    every = sorted({each for ids in given_lists.values() for each in ids})
    assert merged == [
        Lacking(each, tuple(url for url, ids in given_lists.items() if each in ids))
        for each in every
    ]


async def test_a_list_that_fails_is_left_out() -> None:
    server = SosServer(PERL, objects={"a": b""})
    server.faults.cuts_lists = True
    async with serving_sos(server), SosClient() as client:
        with closing(Lists()) as lists:
            with pytest.raises(Unavailable):
                await lists.fetch(client, server.url)
            assert lists.urls == ()
            assert list(lists.merged()) == []


async def test_memory_does_not_grow_with_the_lists() -> None:
    names = [f"{number:040x}" for number in range(20_000)]
    client = Listing({"a": names, "b": names[::2]})
    tracemalloc.start()
    try:
        with closing(Lists()) as lists:
            await lists.fetch(client, "a")
            await lists.fetch(client, "b")
            found = sum(len(each.holders) for each in lists.merged())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == 30_000
    assert peak < 500_000


class FullFile(io.BytesIO):
    """A file on a full disk: what was written to it is lost when it is to be kept."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        super().close()
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_full_directory_for_temporary_files_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for each in ("TemporaryFile", "SpooledTemporaryFile"):
        monkeypatch.setattr(tempfile, each, lambda *_: FullFile())
    with closing(Lists()) as lists, pytest.raises(Full, match="list") as refused:
        await lists.fetch(Listing({"a": ["b"]}), "a")
    assert "TMPDIR" in refused.value.hint
    with closing(_Held()) as held:
        held.add(b"abc")
        with pytest.raises(Full, match="object"):
            held.finish()
        held.restart()
        assert held.size == 0


class Dying(Listing):
    """Servers of which one fails, and ``is_gone`` says whether it answers at all."""

    def __init__(self, lists: dict[str, list[str]], *, is_gone: bool) -> None:
        super().__init__(lists)
        self.is_gone = is_gone
        self.posts: list[str] = []

    async def alive(self, url: str) -> None:
        if self.is_gone:
            raise Unavailable("gone")

    @asynccontextmanager
    async def open(self, url: str, sos_id: str, start: int = 0) -> AsyncIterator[SosAnswer]:
        async def pieces() -> AsyncGenerator[bytes, None]:
            yield sos_id.encode()

        yield SosAnswer(None, {}, 0, pieces())

    async def post(
        self, url: str, sos_id: str, body: Body, metadata: Mapping[str, str] | None = None
    ) -> None:
        self.posts.append(url)
        raise Unavailable("it hangs")


class Silent:
    """Watches, and says nothing."""

    progress: Progress | None = None

    def copying(self, lacking: Lacking, targets: Sequence[str]) -> "Silent":
        return self

    def trying(self, url: str) -> None: ...

    def copied(self, url: str, size: int) -> None: ...

    def failed(self, url: str, failure: TierceError) -> None: ...

    def ended(self) -> None: ...


@pytest.mark.parametrize("is_gone", [True, False])
async def test_a_server_that_is_gone_is_not_waited_for_with_each_object(is_gone: bool) -> None:
    client = Dying({"a": [f"{number}" for number in range(100)], "b": []}, is_gone=is_gone)
    with closing(Lists()) as lists:
        for url in "ab":
            await lists.fetch(client, url)
        tally = await Replication(client, lists, 2, Silent(), random.Random(0)).run()
    assert (tally.objects, tally.copies, tally.failed) == (100, 0, 100)
    assert len(client.posts) <= COPIES_AT_ONCE if is_gone else len(client.posts) == 100
