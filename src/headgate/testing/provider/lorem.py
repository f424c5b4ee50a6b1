"""The text of the built-in provider: always the same words in the same order, so that a test can expect them exactly.

A *token* here is a word with the white space before it.  That is this provider's tokenizer: its usage figures count
such words.
"""

from __future__ import annotations

import re

MAX_TOKENS = 100_000
_OPENING = (
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et "
    "dolore magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip ex "
    "ea commodo consequat. Duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore eu fugiat "
    "nulla pariatur. Excepteur sint occaecat cupidatat non proident, sunt in culpa qui officia deserunt mollit "
    "anim id est laborum."
)
_WORDS = sorted({word.strip(".,").lower() for word in _OPENING.split()})
_PERIOD = 4096
_TOKEN = re.compile(r"\s*\S+|\s+\Z")


def split(text: str) -> list[str]:
    """A text's tokens; joined they are the text again, to the last space."""
    return _TOKEN.findall(text)


def _table() -> list[str]:
    """The opening, then sentences of seven to thirteen words drawn by a fixed linear congruence, a paragraph each 70
    words.
    """
    tokens = split(_OPENING)
    state, left, fresh = 1, 0, True
    while len(tokens) < _PERIOD:
        state = (state * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
        if left == 0:
            left, fresh = 7 + (state >> 8) % 7, True
        word = _WORDS[(state >> 12) % len(_WORDS)]
        space = "\n\n" if fresh and len(tokens) % 70 < 10 else " "
        left -= 1
        tokens.append(space + (word.capitalize() if fresh else word) + ("." if left == 0 else ""))
        fresh = False
    return tokens


_TABLE = _table()


def tokens(count: int) -> list[str]:
    """The first ``count`` tokens.  They repeat after 4,096."""
    whole, rest = divmod(count, _PERIOD)
    return _TABLE * whole + _TABLE[:rest]


def text(count: int) -> str:
    """Return the first ``count`` tokens as one string: the exact text that a client must get."""
    return "".join(tokens(count))


def remaining(planned: list[str], before: str | None) -> list[str]:
    """Return the rest of the answer after the assistant's own text ``before`` (a prefill).

    If ``before`` is no beginning of the planned text, the text starts afresh.
    """
    if not before:
        return planned
    whole = "".join(planned)
    return split(whole[len(before) :]) if whole.startswith(before) else planned
