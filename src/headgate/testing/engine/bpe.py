"""A byte-level BPE vocabulary, learned from the fixture engine's own texts when it is first needed.

It is real where it matters to a gateway: tokens are bytes, not characters.  A token may end in the middle of a
character or span the white space between two words.  Small (512 tokens) and always the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import pairwise

from headgate.testing.engine.corpus import UNITS

SIZE = 512
Pair = tuple[int, int]


class Bpe:
    """``pieces[id]`` are a token's bytes.  The first 256 ids are the bytes themselves."""

    def __init__(self, units: Iterable[str], size: int = SIZE) -> None:
        self.pieces = [bytes((byte,)) for byte in range(256)]
        self._merged: dict[Pair, int] = {}  # in order of rank: a lower id was learned earlier
        self._known: dict[str, tuple[int, ...]] = {}
        self._learn(Counter(units), size)

    def _learn(self, units: Counter[str], size: int) -> None:
        """The usual training: the most frequent pair becomes a token, ties go to the smaller ids."""
        words = [list(unit.encode()) for unit in units]
        weights = list(units.values())
        counts: Counter[Pair] = Counter()
        where: dict[Pair, set[int]] = {}
        for at, word in enumerate(words):
            for pair in pairwise(word):
                counts[pair] += weights[at]
                where.setdefault(pair, set()).add(at)
        while len(self.pieces) < size:
            pair = max(counts, key=lambda pair: (counts[pair], -pair[0], -pair[1]))
            new = self._merged[pair] = len(self.pieces)
            self.pieces.append(self.pieces[pair[0]] + self.pieces[pair[1]])
            for at in where.pop(pair):
                word = words[at]
                for old in pairwise(word):
                    counts[old] -= weights[at]
                words[at] = word = _merge(word, pair, new)
                for fresh in pairwise(word):
                    counts[fresh] += weights[at]
                    where.setdefault(fresh, set()).add(at)
            del counts[pair]

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a text that is short, a unit or a word: the time is quadratic in its length."""
        found = self._known.get(text)
        if found is None:
            found = tuple(self._encode(list(text.encode("utf-8", "surrogatepass"))))
            if len(self._known) < 10_000:
                self._known[text] = found
        return found

    def _encode(self, ids: list[int]) -> list[int]:
        while len(ids) > 1:
            pairs = set(pairwise(ids)) & self._merged.keys()
            if not pairs:
                break
            pair = min(pairs, key=self._merged.__getitem__)
            ids = _merge(ids, pair, self._merged[pair])
        return ids


def _merge(ids: list[int], pair: Pair, new: int) -> list[int]:
    merged: list[int] = []
    at, end = 0, len(ids)
    while at < end:
        if at + 1 < end and ids[at] == pair[0] and ids[at + 1] == pair[1]:
            merged.append(new)
            at += 2
        else:
            merged.append(ids[at])
            at += 1
    return merged


@cache
def vocabulary() -> Bpe:
    """The engine's vocabulary: some 60 ms the first time, which is why it is not made at import."""
    return Bpe(unit for units in UNITS.values() for unit in units)
