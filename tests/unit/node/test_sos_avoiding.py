"""For how long blob servers of SOS are tried last."""

import asyncio

import pytest

from tierce.core.errors import Corrupt, TierceError, Unavailable
from tierce.node import sos_avoiding
from tierce.node.sos_avoiding import SosAvoiding

URLS = ["http://a", "http://b"]
DOWN = Unavailable("down")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which tests set."""
    now = [1000.0]
    monkeypatch.setattr(sos_avoiding, "_now", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("failure", "waited_seconds", "avoided_seconds"),
    [(DOWN, 0.0, 5), (DOWN, 10.0, 50), (DOWN, 3600.0, 300), (Corrupt("wrong"), 0.0, 60)],
    ids=["refused", "silent", "silent for very long", "wrong bytes"],
)
def test_what_was_dear_to_learn_counts_for_longer(
    clock: list[float], failure: TierceError, waited_seconds: float, avoided_seconds: float
) -> None:
    avoiding = SosAvoiding()
    avoiding.failed("http://a", failure, waited_seconds)
    clock[0] += avoided_seconds - 0.1
    assert avoiding.sorted(URLS) == ["http://b", "http://a"]
    clock[0] += 0.2
    assert avoiding.sorted(URLS) == URLS


async def test_a_server_that_answers_again_is_well() -> None:
    avoiding = SosAvoiding()
    avoiding.failed("http://a", DOWN, 10.0)
    avoiding.answered("http://a")
    assert avoiding.sorted(URLS) == URLS


async def test_a_quick_answer_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sos_avoiding, "SILENT_SECONDS", 0.01)
    avoiding = SosAvoiding()
    with avoiding.waiting("http://a"):
        pass
    await asyncio.sleep(0.03)
    assert avoiding.sorted(URLS) == URLS
    with avoiding.waiting("http://a"):
        await asyncio.sleep(0.03)
        assert avoiding.sorted(URLS) == ["http://b", "http://a"]
