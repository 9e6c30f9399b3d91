"""Bodies that come compressed: whole or not at all, and never many bytes in memory at once."""

import gzip
import io
import random

import pytest

from tierce.client import couch_sites
from tierce.core.errors import Corrupt

TEXT = random.Random(1).randbytes(1000) * 50


def taken(body: bytes, piece_bytes: int) -> couch_sites.Received:
    taking = couch_sites._Taking(io.BytesIO(), True, "body")
    for start in range(0, len(body), piece_bytes):
        taking.feed(body[start : start + piece_bytes])
    return taking.finished("text/plain")


@pytest.mark.parametrize("piece_bytes", [1, 7, 100_000])
@pytest.mark.parametrize("data", [b"", b"a", TEXT, bytes(100_000)], ids=len)
def test_what_was_compressed_is_as_before(
    monkeypatch: pytest.MonkeyPatch, data: bytes, piece_bytes: int
) -> None:
    monkeypatch.setattr(couch_sites, "SEND_PIECE_BYTES", 1000)
    body = gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :])
    found = taken(body, piece_bytes)
    found.file.seek(0)
    assert (found.file.read(), found.size, found.sent_bytes) == (data, len(data), len(body))


@pytest.mark.parametrize("cut", [1, 8, 20, 400])
def test_what_has_no_end_is_refused(cut: int) -> None:
    with pytest.raises(Corrupt, match="end is missing"):
        taken(gzip.compress(TEXT)[:-cut], 300)


@pytest.mark.parametrize("body", [b"plain", gzip.compress(TEXT) + b"more than that"])
def test_what_is_not_compressed_is_refused(body: bytes) -> None:
    with pytest.raises(Corrupt, match="can't be decompressed"):
        taken(body, 1000)
