"""Answers 409 and 423: somebody else is at the same object, and the next attempt finds it free."""

from pathlib import Path

import pytest
from opendal import exceptions

from tierce.cloud.bucket import open_bucket
from tierce.cloud.failures import Contended, translate
from tierce.cloud.retrying import Patience, Retrying
from tierce.core.errors import NotFound, Unavailable
from tierce.testing.fault_proxy import FaultProxy, Mode
from tierce.testing.rclone import serve_webdav

QUICK = Patience(attempts=3, backoff_min_seconds=0.001, circuit_failures=2)


class Content:
    data = b"content"
    size = len(data)

    async def stream(self):  # type: ignore[no-untyped-def]
        yield self.data


def answer(status: int) -> Exception:
    return exceptions.Unexpected(
        f"Unexpected (permanent) at write => \n\nContext:\n   response: Parts {{ status: {status}, "
        "version: HTTP/1.1 }\n   service: webdav\n"
    )


@pytest.mark.parametrize(("status", "is_contended"), [(409, True), (423, True), (405, False)])
def test_conflict_and_locked_are_told_from_other_answers(status: int, is_contended: bool) -> None:
    assert isinstance(translate(answer(status), "writing x"), Contended) == is_contended


async def test_a_request_that_goes_out_once_does_so_again_if_it_was_refused() -> None:
    retrying = Retrying(QUICK)
    answers: list[Exception] = [answer(423), answer(409)]

    async def attempt() -> str:
        if answers:
            raise answers.pop(0)
        return "done"

    assert await retrying.run("x", attempt, attempts=1) == "done"
    assert retrying.circuit.failed_count == 0
    answers[:] = [answer(423), exceptions.Unexpected("Unexpected (temporary) at x => reset")]
    with pytest.raises(Unavailable, match="reset"):
        await retrying.run("x", attempt, attempts=1)


@pytest.mark.parametrize("status", [409, 423])
@pytest.mark.parametrize("method", ["PUT", "MOVE", "DELETE"])
async def test_another_client_of_the_share_is_waited_for(
    tmp_path: Path, status: int, method: str
) -> None:
    with serve_webdav(tmp_path / "webdav") as server:
        async with FaultProxy(server.port).running() as proxy:
            bucket = open_bucket(f"webdav:///x?endpoint={proxy.endpoint}", patience=QUICK)
            proxy.status = status
            proxy.harm(Mode.ERROR, only=method, times=2)
            await bucket.write("a/b", Content())
            assert [each.name for each in (tmp_path / "webdav/x/a").iterdir()] == ["b"]
            await bucket.delete("a/b", attempts=1)
            assert proxy.harmed == 2
            with pytest.raises(NotFound):
                await bucket.look("a/b")
