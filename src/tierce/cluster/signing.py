"""Signatures on what nodes say to each other: only who knows the cluster's secret is heard.

A request carries ``Tierce-Signature: v1 TIME NONCE BODY MAC``: the time in milliseconds of wall
clock, 16 hex digits drawn at random, the digest of the body, and an HMAC-SHA-256 under the secret
over those three, the method, and the path with its query. The body is covered through its digest,
which the receiver has to check (:func:`check_body`, or by hashing a blob as it is stored). Of each
request the receiver remembers the nonce for as long as its time is acceptable, so it counts once.
An answer carries ``Tierce-Signature: v1 MAC``, over the request's nonce, the status and a digest of
the body, so that nobody else can answer, or answer again.

A stranger learns nothing: what is wrong beyond the MAC is said only once the MAC was right. The
signature names no receiver, and a node that starts anew has forgotten its nonces: a message that
must not be heard by another node, or twice, has to say so itself. Pure: time and nonces are
arguments. It knows neither HTTP nor what the messages mean.
"""

import hmac
import re
from typing import Literal, NamedTuple

from blake3 import blake3

from tierce.core.errors import Forbidden, Unavailable
from tierce.core.limits import SIGNATURE_WINDOW_SECONDS

HEADER = "Tierce-Signature"
NO_BODY = "-"
NONCE_BYTES = 8
# About 80 MB at most. A node that answers 15,000 requests a second gets there.
NONCES_COUNT = 1_000_000

Reason = Literal["missing", "malformed", "wrong", "replayed", "clock"]

_REQUEST = "tierce request v1"
_ANSWER = "tierce answer v1"
_FORM = re.compile(
    r"v1 (0|[1-9][0-9]{0,14}) ([0-9a-f]{16}) (-|[0-9a-z]{1,16}:[0-9a-f]{1,128}) ([0-9a-f]{64})"
)
_SLOTS_PER_WINDOW = 8


class BadSignature(Forbidden):
    """A request without a right signature. ``reason`` is one word, for counting."""

    def __init__(self, message: str, *, reason: Reason, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class Signed(NamedTuple):
    """What a request's header says: time in ms, nonce, digest of the body or NO_BODY, and MAC."""

    time_ms: int
    nonce: str
    body_digest: str
    mac: str

    def __str__(self) -> str:
        return f"v1 {self.time_ms} {self.nonce} {self.body_digest} {self.mac}"


def digest_of(body: bytes) -> str:
    """The digest under which a message held in memory is signed."""
    return f"blake3:{blake3(body).hexdigest()}"


def sign(secret: str, method: str, path: str, time_ms: int, nonce: str, body_digest: str) -> str:
    """The MAC of a request, in hex. ``path`` is as sent, with its query."""
    # The path comes last and the method is one word, so no two requests make the same text.
    return _mac(secret, f"{_REQUEST}\n{time_ms}\n{nonce}\n{body_digest}\n{method}\n{path}")


def sign_answer(secret: str, nonce: str, status: int, body_digest: str) -> str:
    """The header's value for an answer to the request with this nonce."""
    return "v1 " + _mac(secret, f"{_ANSWER}\n{nonce}\n{status}\n{body_digest}")


def is_answer_signed(
    secret: str, header: str | None, nonce: str, status: int, body_digest: str
) -> bool:
    """Whether an answer's header is right."""
    return header is not None and _same(header, sign_answer(secret, nonce, status, body_digest))


def parse(header: str) -> Signed:
    """Read the header of a request, as ``str(Signed)`` writes it. Raises BadSignature."""
    match = _FORM.fullmatch(header)
    if match is None:
        raise BadSignature(
            f"the header {HEADER} can't be read",
            reason="malformed",
            hint="Run the same version of Tierce on both nodes.",
        )
    time_ms, nonce, body_digest, mac = match.groups()
    return Signed(int(time_ms), nonce, body_digest, mac)


def check_body(signed: Signed, body_digest: str) -> None:
    """Raise BadSignature if the body that came is not the one that was signed."""
    if not _same(signed.body_digest, body_digest):
        raise BadSignature(
            "the body is not the one that was signed",
            reason="wrong",
            hint="Something between the two nodes changes what they send.",
        )


class Verifier:
    """Checks requests, and remembers those that it has let through. One per listening process."""

    def __init__(
        self,
        secret: str,
        window_seconds: float = SIGNATURE_WINDOW_SECONDS,
        *,
        nonces_count: int = NONCES_COUNT,
    ) -> None:
        """``nonces_count`` bounds the memory: with so many in the window, more are turned away."""
        self._secret = secret
        self._window_ms = int(window_seconds * 1000)
        self._nonces_count = nonces_count
        # Nonces by the time of their requests, in slots, so that whole slots can be forgotten.
        self._slot_ms = max(1, self._window_ms // _SLOTS_PER_WINDOW)
        self._slots: dict[int, set[int]] = {}
        self._oldest = 0

    def __len__(self) -> int:
        """How many nonces are remembered."""
        return sum(len(nonces) for nonces in self._slots.values())

    def verify(self, header: str | None, method: str, path: str, now: float) -> Signed:
        """Let a request through, once. ``now`` is this node's wall clock, in seconds.

        Raises BadSignature, or Unavailable when too many requests are to be remembered.
        """
        if header is None:
            raise BadSignature(
                "this address is for other nodes, whose requests are signed",
                reason="missing",
                hint="Use the address of one of the node's other doors.",
            )
        signed = parse(header)
        right = sign(self._secret, method, path, signed.time_ms, signed.nonce, signed.body_digest)
        if not _same(signed.mac, right):
            raise BadSignature(
                "the signature is wrong",
                reason="wrong",
                hint="Set TIERCE_CLUSTER_SECRET to the same text on every node.",
            )
        now_ms = int(now * 1000)
        self._check_clock(signed, now_ms)
        self._remember(signed, now_ms)
        return signed

    def sign_answer(self, signed: Signed, status: int, body_digest: str) -> str:
        """The header's value for the answer to a request that was let through."""
        return sign_answer(self._secret, signed.nonce, status, body_digest)

    def _check_clock(self, signed: Signed, now_ms: int) -> None:
        skew_ms = abs(signed.time_ms - now_ms)
        if skew_ms > self._window_ms:
            raise BadSignature(
                f"the clocks of the two nodes differ by about {skew_ms / 1000:.0f} s",
                reason="clock",
                hint="Set the clocks of both nodes by NTP.",
            )

    def _remember(self, signed: Signed, now_ms: int) -> None:
        self._forget(now_ms)
        slot = signed.time_ms // self._slot_ms
        nonce = int(signed.nonce, 16)
        # A slot that was forgotten comes back only if this clock was set back; it may hold anything.
        if slot < self._oldest or nonce in self._slots.get(slot, ()):
            raise BadSignature(
                "this request came before",
                reason="replayed",
                hint="Something between the two nodes repeats what they send.",
            )
        if len(self) >= self._nonces_count:
            raise Unavailable(
                "more requests came from other nodes than can be remembered",
                hint="Ask again in a minute.",
            )
        self._slots.setdefault(slot, set()).add(nonce)

    def _forget(self, now_ms: int) -> None:
        oldest = (now_ms - self._window_ms) // self._slot_ms
        latest = (now_ms + self._window_ms) // self._slot_ms
        if oldest > self._oldest:
            self._slots = {slot: held for slot, held in self._slots.items() if slot >= oldest}
        # After a great step back of this clock nobody could be heard for as long: start over.
        if oldest > self._oldest or latest < self._oldest:
            self._oldest = oldest


def _mac(secret: str, text: str) -> str:
    # Secrets and paths may hold bytes that are no UTF-8, which are lone surrogates by now.
    key, data = secret.encode("utf-8", "surrogatepass"), text.encode("utf-8", "surrogatepass")
    return hmac.digest(key, data, "sha256").hex()


def _same(one: str, other: str) -> bool:
    """Compare in a time that tells nothing. A header may hold anything."""
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8"))
