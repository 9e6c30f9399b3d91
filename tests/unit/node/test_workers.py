"""How long the supervisor waits before it starts a dead process again."""

from tierce.core.limits import RESTART_BACKOFF_MAX_SECONDS, RESTART_BACKOFF_MIN_SECONDS
from tierce.node.workers import next_backoff


def test_the_wait_doubles_up_to_a_limit() -> None:
    waits, wait = [], 0.0
    for _ in range(20):
        wait = next_backoff(wait, lived_seconds=0.1)
        waits.append(wait)
    assert waits[:3] == [RESTART_BACKOFF_MIN_SECONDS * factor for factor in (1, 2, 4)]
    assert waits[-1] == RESTART_BACKOFF_MAX_SECONDS


def test_a_process_that_lived_long_is_started_at_once_again() -> None:
    assert next_backoff(30.0, lived_seconds=3600) == RESTART_BACKOFF_MIN_SECONDS
