"""The fixture engine's text: each token is a function of the seed and of all earlier tokens, of prompt and answer.

The state is a hash over the token ids so far; it chooses the next *unit* of the corpus, whose BPE tokens then follow.
So a request with a part of an answer as prefill gets exactly the rest.  The cut may be anywhere, also in the middle
of a unit or of a token.  A prefix that differs in one character gets another continuation.
"""

from __future__ import annotations

from functools import cache

from headgate.testing.engine.bpe import vocabulary
from headgate.testing.engine.corpus import REPEATING, UNITS, words

_MASK = (1 << 64) - 1
_FNV = 0x100000001B3
_START = 0xCBF29CE484222325
_JSON = ('{"text":"', '"}')
_NOWHERE = ""
_TEXTS = {**UNITS, **REPEATING}


@cache
def _followers(mode: str) -> dict[str, tuple[str, ...]]:
    """The possible successors of each unit in the corpus; any unit may follow one that is not in it."""
    units = _TEXTS[mode]
    found: dict[str, list[str]] = {}
    for unit, following in zip(units, units[1:] + units[:1], strict=True):
        found.setdefault(unit, []).append(following)
    return {unit: tuple(following) for unit, following in found.items()}


def count(text: str) -> int:
    """Return the number of tokens in a text."""
    encode = vocabulary().encode
    return sum(len(encode(word)) for word in words(text))


class Walk:
    """One answer of at least ``tokens`` tokens, which ends with a whole unit.

    ``diverge``: after this many tokens it takes another way, like a model that is not deterministic.
    """

    def __init__(self, seed: int, mode: str, prompt: str, tokens: int, diverge: int = 0) -> None:
        self._encode = vocabulary().encode
        self._units, self._followers = _TEXTS[mode], _followers(mode)
        self._wrap = _JSON if mode == "json" else ("", "")
        self._tokens, self._diverge = tokens, diverge
        self._state = (_START ^ seed * 0x9E3779B97F4A7C15) & _MASK
        self._last = _NOWHERE
        self._closed = False
        for word in words(prompt):
            self._mix(self._encode(word))
        self.count = 0

    def _mix(self, ids: tuple[int, ...]) -> None:
        state = self._state
        for id in ids:
            state = ((state ^ id) * _FNV) & _MASK
        self._state = state

    def next(self) -> str | None:
        """Return the next unit; None at the end."""
        opening, closing = self._wrap
        if not self.count and opening:
            return opening
        if self.count >= self._tokens:
            return None if self._closed or not closing else closing
        choice = self._state ^ (self._state >> 32)
        choice = (choice * 0xD6E8FEB86659FD93) & _MASK
        choice ^= choice >> 32
        known = self._followers.get(self._last)
        if known is None or choice & 3 == 0:  # now and then somewhere else, or it would be the corpus again
            known = self._units
        return known[(choice >> 2) % len(known)]

    def take(self, text: str) -> None:
        """Continue after ``text``: its own next unit, or a foreign text."""
        ids = self._encode(text)
        self._closed = self.count >= self._tokens
        before, self.count = self.count, self.count + len(ids)
        self._mix(ids)
        if before < self._diverge <= self.count:
            self._mix((self._diverge,))
        self._last = text


def rest(walk: Walk, prefill: str) -> tuple[list[bytes], int]:
    """Return the tokens that follow ``prefill``, and the number of tokens in it."""
    pieces = vocabulary().pieces
    encode = vocabulary().encode
    left: list[bytes] = []
    used = 0
    while (unit := walk.next()) is not None:
        ids = encode(unit)
        if prefill.startswith(unit):
            prefill, used = prefill[len(unit) :], used + len(ids)
        elif unit.startswith(prefill):  # nothing is left of it, or it ends within this unit
            skip = len(prefill.encode())
            prefill = ""
            for piece in (pieces[id] for id in ids):
                if len(piece) > skip:
                    left.append(piece[skip:])
                else:
                    used += 1
                skip = max(0, skip - len(piece))
        else:  # a foreign text
            unit, prefill = prefill[0], prefill[1:]
            used += len(encode(unit))
        walk.take(unit)
    return left, used
