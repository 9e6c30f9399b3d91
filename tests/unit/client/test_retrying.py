"""When a client tries again."""

from datetime import UTC, datetime

import pytest

from tierce.client.retrying import Retry, parse_retry_after

RETRY = Retry(attempts=4, backoff_min_seconds=1, backoff_max_seconds=3, retry_after_max_seconds=60)
NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def test_pauses_double_up_to_the_limit() -> None:
    assert [RETRY.delay_seconds(n, None, 1.0) for n in (1, 2, 3)] == [1, 2, 3]


def test_luck_shortens_a_pause_to_half_at_most() -> None:
    assert RETRY.delay_seconds(2, None, 0.0) == 1


def test_the_last_attempt_is_not_followed_by_a_pause() -> None:
    assert RETRY.delay_seconds(4, None, 0.5) is None
    assert RETRY.delay_seconds(4, 1.0, 0.5) is None


def test_a_wait_that_the_server_asks_for_replaces_the_backoff() -> None:
    assert RETRY.delay_seconds(1, 20.0, 0.0) == 20


def test_a_long_wait_ends_the_attempts() -> None:
    assert RETRY.delay_seconds(1, 61.0, 0.0) is None


def test_a_thousand_failures_overflow_nothing() -> None:
    assert Retry(attempts=10_000).delay_seconds(9_999, None, 1.0) == 10


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Mon, 06 May 2024 07:08:39 GMT", 30.0),
        ("Mon, 06 May 2024 07:08:39 -0000", 30.0),
        ("Mon, 06 May 2024 07:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("\u0667", None),
    ],
)
def test_retry_after_is_read(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, NOW) == seconds
