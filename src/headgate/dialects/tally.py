"""How many tokens a text has that nobody has counted: an estimate, by its characters.

ASCII has about four bytes a token, the rest about two and a half.  Most upstreams send one token an event; the number
of events is the better figure then.  But some send single characters, others whole sentences: so events count only
where the estimate says that they are about as long as tokens are.
"""

from __future__ import annotations

from typing import NamedTuple

SAMPLE = 16 << 10
_ASCII, _REST = 4, 2.5  # bytes per token
_LONGEST, _SHORTEST = 1.8, 0.4  # of a piece that may be a token, by the estimate; a character is 0.25, two tokens 2
_FEW = 4  # of so few tokens an estimate says nothing


class Tally(NamedTuple):
    """How much has been streamed: pieces, their bytes, and those of the content among them, as they stand in JSON."""

    pieces: int = 0
    size: int = 0
    content: int = 0


NOTHING = Tally()


def estimate(text: str) -> float:
    """Tokens in ``text``."""
    size = len(text.encode(errors="surrogatepass"))
    ascii_size = size if text.isascii() else len(text.encode("ascii", "ignore"))
    return ascii_size / _ASCII + (size - ascii_size) / _REST


def estimate_tokens(text: bytes | memoryview) -> int:
    """Tokens in ``text`` by byte classes, from a sample of its first 16 KiB.

    Within a fifth or so for prose, further off for code and numbers.
    """
    sample = bytes(text[:SAMPLE])
    if sample.isascii():
        return (len(text) + 3) // 4
    ascii_bytes = len(sample.decode("ascii", "ignore"))
    per_byte = (ascii_bytes / _ASCII + (len(sample) - ascii_bytes) / _REST) / len(sample)
    return max(1, round(len(text) * per_byte))


def space_tokens(space: str) -> int:
    """Tokens in a run of white space, which tokenizers keep together."""
    return -(-len(space) // 4)


def count(pieces: int, estimated: float) -> int:
    """Tokens in a text that came in so many pieces, of which so many are estimated."""
    if pieces * _SHORTEST <= estimated <= pieces * _LONGEST:
        return pieces
    if abs(pieces - estimated) <= _FEW:
        return max(pieces, int(estimated))
    return max(1, round(estimated)) if pieces else 0
