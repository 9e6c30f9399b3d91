"""Which digests a listing has named, in little memory: 8 bytes of each."""

from array import array
from bisect import bisect_left

from tierce.core.digest import Digest

_GROUP_AT, _WORD_AT, _WORD_END = 0, 1, 9


class Seen:
    """A set of digests; all are added before the first question.

    Two digests that have 9 bytes in common are taken for one. Nobody meets such by chance, and who
    makes some up has a loss of his own overlooked until the scrub comes by.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[str, int], array[int]] = {}
        self._is_sorted = False

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, digest: Digest) -> None:
        assert not self._is_sorted
        key = (digest.algorithm, digest.raw[_GROUP_AT])
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = array("Q")
        group.append(_word(digest))

    def __contains__(self, digest: Digest) -> bool:
        if not self._is_sorted:
            self._sort()
        group = self._groups.get((digest.algorithm, digest.raw[_GROUP_AT]))
        if group is None:
            return False
        word = _word(digest)
        at = bisect_left(group, word)
        return at < len(group) and group[at] == word

    def _sort(self) -> None:
        for key, group in self._groups.items():
            self._groups[key] = array("Q", sorted(group))
        self._is_sorted = True


def _word(digest: Digest) -> int:
    return int.from_bytes(digest.raw[_WORD_AT:_WORD_END])
