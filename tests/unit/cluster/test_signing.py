"""A signature lets a request through once, in its time, as it was; and nothing else."""

import hashlib
import hmac
import string

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from tierce.cluster.signing import (
    NO_BODY,
    BadSignature,
    Signed,
    Verifier,
    check_body,
    digest_of,
    is_answer_signed,
    parse,
    sign,
    sign_answer,
)
from tierce.core.errors import Forbidden, Unavailable
from tierce.core.limits import SIGNATURE_WINDOW_SECONDS

SECRET = "a secret of some length"
NOW = 1_700_000_000.0
NONCE = "0123456789abcdef"

nonces = st.text("0123456789abcdef", min_size=16, max_size=16)
digests = st.one_of(
    st.just(NO_BODY),
    st.binary(max_size=20).map(digest_of),
    st.binary(min_size=20, max_size=20).map(lambda raw: f"sha1:{raw.hex()}"),
)
methods = st.text(string.ascii_uppercase, min_size=1, max_size=8)
paths = st.text(max_size=40).map(lambda text: "/" + text)
secrets = st.text(max_size=30)


def header(
    secret: str = SECRET,
    method: str = "POST",
    path: str = "/gossip",
    time: float = NOW,
    nonce: str = NONCE,
    body_digest: str = NO_BODY,
) -> str:
    time_ms = int(time * 1000)
    mac = sign(secret, method, path, time_ms, nonce, body_digest)
    return str(Signed(time_ms, nonce, body_digest, mac))


def reason_of(
    verifier: Verifier,
    text: str | None,
    method: str = "POST",
    path: str = "/gossip",
    now: float = NOW,
) -> str:
    """Why a request is refused; empty if it is let through."""
    try:
        verifier.verify(text, method, path, now)
    except BadSignature as refused:
        assert refused.message
        assert refused.hint
        return refused.reason
    return ""


def test_the_signature_is_the_documented_one() -> None:
    text = f"tierce request v1\n1700\n{NONCE}\n-\nGET\n/blobs/x?start=1"
    expected = hmac.new(b"key", text.encode(), hashlib.sha256).hexdigest()
    assert sign("key", "GET", "/blobs/x?start=1", 1700, NONCE, "-") == expected
    answer = hmac.new(b"key", f"tierce answer v1\n{NONCE}\n200\nd".encode(), hashlib.sha256)
    assert sign_answer("key", NONCE, 200, "d") == f"v1 {answer.hexdigest()}"


def test_a_message_is_signed_under_its_blake3_digest() -> None:
    assert digest_of(b"text") == f"blake3:{blake3(b'text').hexdigest()}"


@given(secret=secrets, method=methods, path=paths, nonce=nonces, digest=digests)
def test_what_was_signed_is_let_through(
    secret: str, method: str, path: str, nonce: str, digest: str
) -> None:
    text = header(secret, method, path, NOW, nonce, digest)
    signed = Verifier(secret).verify(text, method, path, NOW)
    assert (signed.time_ms, signed.nonce, signed.body_digest) == (int(NOW * 1000), nonce, digest)


@given(st.data())
def test_a_change_of_any_part_is_refused(data: st.DataObject) -> None:
    parts = (secrets, methods, paths, st.integers(0, 10**14), nonces, digests)
    one, other = (data.draw(st.tuples(*parts)) for _ in range(2))
    place = data.draw(st.integers(0, len(parts) - 1))
    changed = (*one[:place], other[place], *one[place + 1 :])
    assert (sign(*one) == sign(*changed)) is (one == changed)


@given(place=st.integers(0, 200), character=st.characters(codec="ascii"))
def test_a_header_with_one_other_character_is_refused(place: int, character: str) -> None:
    right = header(body_digest=digest_of(b"body"))
    place %= len(right)
    changed = right[:place] + character + right[place + 1 :]
    expected = [""] if changed == right else ["wrong", "malformed"]
    assert reason_of(Verifier(SECRET), changed) in expected


@given(first=st.text(max_size=20), second=st.text(max_size=20))
def test_where_method_and_path_meet_can_not_be_moved(first: str, second: str) -> None:
    one = sign(SECRET, "POST", f"/{first}{second}", 1, NONCE, NO_BODY)
    assert one != sign(SECRET, f"POST/{first}", second, 1, NONCE, NO_BODY)


@pytest.mark.parametrize(
    "text",
    [
        "", "v1", "v2 1 0123456789abcdef - " + "0" * 64, "v1 1 0123456789abcdef  " + "0" * 64,
        "v1 01 0123456789abcdef - " + "0" * 64, "v1 1 0123456789ABCDEF - " + "0" * 64,
        "v1 -1 0123456789abcdef - " + "0" * 64, "v1 1 0123456789abcdef - " + "0" * 63,
        "v1 ٣ 0123456789abcdef - " + "0" * 64, "v1 1 0123456789abcdef - " + "0" * 64 + "\n",
        "v1 " + "9" * 5000 + " 0123456789abcdef - " + "0" * 64, "\udcff" * 9,
    ],
)  # fmt: skip
def test_what_is_no_signature_is_malformed(text: str) -> None:
    assert reason_of(Verifier(SECRET), text) == "malformed"


@given(st.text())
def test_any_text_is_refused_in_words(text: str) -> None:
    assert reason_of(Verifier(SECRET), text) == "malformed"


def test_a_request_without_a_signature_is_refused() -> None:
    assert reason_of(Verifier(SECRET), None) == "missing"


def test_another_secret_is_refused() -> None:
    assert reason_of(Verifier("other"), header()) == "wrong"
    assert reason_of(Verifier(""), header()) == "wrong"
    assert reason_of(Verifier(SECRET), header(secret="")) == "wrong"


def test_without_a_secret_nodes_still_hear_each_other() -> None:
    assert reason_of(Verifier(""), header(secret="")) == ""


def test_a_bad_signature_is_forbidden() -> None:
    assert issubclass(BadSignature, Forbidden)


def test_a_request_counts_once() -> None:
    verifier = Verifier(SECRET)
    assert [reason_of(verifier, header()) for _ in range(3)] == ["", "replayed", "replayed"]
    assert reason_of(verifier, header(nonce="f" * 16)) == ""


@pytest.mark.parametrize("skew", [-60, -30, 0, 30, 60])
def test_a_request_is_never_let_through_again_as_time_goes_on(skew: float) -> None:
    """Its nonce is remembered for as long as its time would do, on both sides of the window."""
    verifier = Verifier(SECRET)
    text = header(time=NOW + skew)
    assert reason_of(verifier, text) == ""
    for after in range(0, 200, 1):
        reason = "replayed" if after <= SIGNATURE_WINDOW_SECONDS + skew else "clock"
        assert reason_of(verifier, text, now=NOW + after) == reason


@given(
    sent=st.lists(st.tuples(st.integers(0, 3), st.floats(-70, 70)), max_size=30),
    steps=st.lists(st.floats(0, 40), min_size=30, max_size=30),
)
def test_each_request_is_let_through_as_a_naive_memory_would(
    sent: list[tuple[int, float]], steps: list[float]
) -> None:
    verifier, seen, now = Verifier(SECRET), set[str](), NOW
    for (number, skew), step in zip(sent, steps, strict=False):
        now += step
        # Times on a coarse grid, so that the same request comes again now and then.
        time = round((now + skew) / 20) * 20
        text = header(time=time, nonce=f"{number:016x}")
        expected = "replayed" if text in seen else ""
        if abs(time * 1000 - int(now * 1000)) > SIGNATURE_WINDOW_SECONDS * 1000:
            expected = "clock"
        assert reason_of(verifier, text, now=now) == expected
        if not expected:
            seen.add(text)


@pytest.mark.parametrize("skew", [-93, 93])
def test_a_clock_beyond_the_window_is_named_with_its_skew(skew: float) -> None:
    with pytest.raises(BadSignature, match="differ by about 93 s") as refused:
        Verifier(SECRET).verify(header(time=NOW + skew), "POST", "/gossip", NOW)
    assert refused.value.reason == "clock"
    assert "NTP" in refused.value.hint


def test_a_stranger_learns_nothing_of_the_clock_or_of_what_came_before() -> None:
    verifier = Verifier(SECRET)
    verifier.verify(header(), "POST", "/gossip", NOW)
    for text in (header("other", time=NOW + 1000), header("other")):
        assert reason_of(verifier, text) == "wrong"


def test_only_right_requests_are_remembered() -> None:
    verifier = Verifier(SECRET)
    for text in (header("other"), header(time=NOW + 1000), None, "nonsense"):
        assert reason_of(verifier, text)
    assert len(verifier) == 0


def test_a_clock_set_back_lets_nothing_through_again() -> None:
    verifier = Verifier(SECRET)
    text = header()
    assert reason_of(verifier, text) == ""
    later = NOW + 2 * SIGNATURE_WINDOW_SECONDS
    assert reason_of(verifier, header(time=later), now=later) == ""
    assert reason_of(verifier, text, now=NOW + 30) == "replayed"


def test_after_a_clock_was_wrong_for_long_requests_are_heard_again() -> None:
    verifier = Verifier(SECRET)
    ahead = NOW + 3600
    assert reason_of(verifier, header(time=ahead), now=ahead) == ""
    assert reason_of(verifier, header(), now=NOW) == ""
    assert reason_of(verifier, header(), now=NOW) == "replayed"


def test_nonces_are_forgotten_once_their_time_is_over() -> None:
    verifier = Verifier(SECRET)
    most = 0
    for second in range(600):
        now = NOW + second
        verifier.verify(header(time=now, nonce=f"{second:016x}"), "POST", "/gossip", now)
        most = max(most, len(verifier))
    assert most <= SIGNATURE_WINDOW_SECONDS * 9 / 8 + 1


def test_the_memory_for_nonces_is_bounded() -> None:
    verifier = Verifier(SECRET, nonces_count=3)
    for number in range(3):
        assert reason_of(verifier, header(nonce=f"{number:016x}")) == ""
    with pytest.raises(Unavailable):
        verifier.verify(header(), "POST", "/gossip", NOW)
    assert len(verifier) == 3
    later = NOW + 2 * SIGNATURE_WINDOW_SECONDS
    assert reason_of(verifier, header(time=later), now=later) == ""


def test_another_body_than_the_signed_one_is_refused() -> None:
    signed = parse(header(body_digest=digest_of(b"body")))
    check_body(signed, digest_of(b"body"))
    for other in (digest_of(b"nobody"), NO_BODY, ""):
        with pytest.raises(BadSignature) as refused:
            check_body(signed, other)
        assert refused.value.reason == "wrong"


@given(
    one=st.tuples(secrets, nonces, st.integers(200, 599), digests),
    other=st.tuples(secrets, nonces, st.integers(200, 599), digests),
)
def test_an_answer_is_right_only_for_its_request_status_and_body(
    one: tuple[str, str, int, str], other: tuple[str, str, int, str]
) -> None:
    right = sign_answer(*one)
    secret, nonce, status, digest = one
    assert is_answer_signed(secret, right, nonce, status, digest)
    for place in range(4):
        changed = (
            other[0] if place == 0 else secret,
            other[1] if place == 1 else nonce,
            other[2] if place == 2 else status,
            other[3] if place == 3 else digest,
        )
        is_right = is_answer_signed(changed[0], right, changed[1], changed[2], changed[3])
        assert is_right is (changed == one)


@pytest.mark.parametrize("text", [None, "", "v1", "v1 " + "0" * 64, "\udcff"])
def test_an_answer_without_a_right_signature_is_noticed(text: str | None) -> None:
    assert not is_answer_signed(SECRET, text, NONCE, 200, digest_of(b""))


def test_a_request_s_signature_does_not_do_for_an_answer() -> None:
    mac = sign(SECRET, "POST", "/gossip", 1, NONCE, NO_BODY)
    assert not is_answer_signed(SECRET, f"v1 {mac}", NONCE, 200, NO_BODY)
