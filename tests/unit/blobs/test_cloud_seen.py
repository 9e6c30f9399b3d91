"""The digests of a listing, remembered by a few bytes."""

from hypothesis import given
from hypothesis import strategies as st

from tierce.blobs.cloud_seen import Seen
from tierce.core.digest import Digest

digests = st.builds(
    Digest,
    st.sampled_from(["sha1", "blake3"]),
    # The first bytes decide; few of them, so that groups have several.
    st.builds(
        lambda first, rest: bytes([first]) + rest,
        st.integers(0, 3),
        st.binary(min_size=19, max_size=19),
    ),
)


@given(st.lists(digests, max_size=50), st.lists(digests, max_size=50))
def test_what_was_added_is_there_and_nothing_else(added: list[Digest], asked: list[Digest]) -> None:
    seen = Seen()
    assert not seen
    for digest in added:
        seen.add(digest)
    assert bool(seen) == bool(added)
    assert all(digest in seen for digest in added)
    known = {(each.algorithm, each.raw[:9]) for each in added}
    for digest in asked:
        assert (digest in seen) == ((digest.algorithm, digest.raw[:9]) in known)
