"""How many tokens a text has that nobody has counted: an estimate, by its characters.

ASCII has about four bytes a token, the rest about two and a half.  Most upstreams send one token an event; the number
of events is the better figure then.  But some send single characters, others whole sentences: so events count only
where the estimate says that they are about as long as tokens are.
"""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from headgate.model import Usage
from headgate.wire import codec

SAMPLE = 16 << 10
_ASCII, _REST = 4, 2.5  # bytes per token
_LONGEST, _SHORTEST = 1.8, 0.4  # of a piece that may be a token, by the estimate; a character is 0.25, two tokens 2
_FEW = 4  # of so few tokens an estimate says nothing


class Tally(NamedTuple):
    """How much has been streamed: pieces, their bytes, and those of the content among them, as they stand in JSON."""

    pieces: int = 0
    size: int = 0
    content: int = 0


NO_TEXT = Tally()


THOUGHTS = frozenset(("reasoning_content", "reasoning", "reasoning_details"))  # seen, but not what was asked for
MOST_KEPT = 96 << 10  # bytes of text: an answer longer than this, about 24,000 tokens, is not continued


TELLING = ("length", "content_filter")  # finish reasons that say why there is nothing to see
_LEAST_ROOM = 4 << 10


class Shown:
    """What there was to see of an answer, and how many tokens that may be.  Knows no API.

    ``kinds`` are the members of a chat delta that it would have been seen in, ``pieces`` and ``size`` (bytes) their
    number and length.  ``said`` is the content, exactly, as it stands in JSON: most streams bring it so.  It is None
    where it is not kept (too long, or nobody asked for it).  A stream may add to all of these by itself.
    """

    __slots__ = ("_saved", "kinds", "pieces", "room", "said", "size")

    def __init__(self, *, keep: bool) -> None:
        self.kinds: set[str] = set()
        self.pieces = 0
        self.size = 0
        self.said: bytearray | None = bytearray() if keep else None
        self.room = MOST_KEPT  # how long ``said`` may be before it is looked at
        self._saved = 0  # bytes that it was longer before its escapes were taken out

    @property
    def now(self) -> Tally:
        said = self.said
        return Tally(self.pieces, self.size, len(said) + self._saved if said is not None else 0)

    @property
    def text(self) -> str | None:
        return codec.as_text(b'"%b"' % bytes(self.said)) if self.said is not None else None

    @property
    def estimate(self) -> int:
        """Tokens of all of it, quickly."""
        return count(self.pieces, self.size / _ASCII)

    @property
    def is_hollow(self) -> bool:
        """True if there was nothing but reasoning."""
        return self.kinds <= THOUGHTS

    def add(self, kind: str, size: int, text: str = "") -> None:
        """One delta of ``size`` bytes; ``text`` is its content."""
        self.kinds.add(kind)
        self.pieces += 1
        self.size += size
        if text and self.said is not None:
            self.said += codec.encode(text)[1:-1]
            if len(self.said) > self.room:
                self.bound()

    def bound(self) -> None:
        """Forget a text that is too long.  What counts is the text: its escapes in JSON are taken out."""
        said, text = self.said, self.text
        if said is None or text is None or len(text.encode(errors="surrogatepass")) > MOST_KEPT:
            self.said = None
            return
        plain = codec.encode(text)[1:-1]
        self._saved += len(said) - len(plain)
        said[:] = plain
        self.room = len(plain) + max(MOST_KEPT - len(text.encode(errors="surrogatepass")), _LEAST_ROOM)

    def since(self, before: Tally, now: Tally) -> int:
        """Tokens of what came between the two, as well as can be told."""
        size = (now.size - before.size) / _ASCII
        content = now.content - before.content
        if content > 0 and self.said is not None:
            text = codec.as_text(b'"%b"' % bytes(self.said[max(0, before.content - self._saved) :]))
            if text is not None:
                size += estimate(text) - content / _ASCII
        return count(now.pieces - before.pieces, size)

    def resumed(self, at: Tally, kinds: Set[str]) -> Shown:
        """The same text, of which another attempt will bring the rest; counted up to ``at``."""
        other = Shown(keep=False)
        other.said, other.room, other._saved = self.said, self.room, self._saved
        other.pieces, other.size = at.pieces, at.size
        other.kinds = self.kinds & kinds
        return other

    def forget_text(self) -> None:
        """The text is not gone on with."""
        self.said = None


def added(
    before: Usage, reported: Usage | None, new: int, *, behind: int = 0, done: bool, afresh: bool, thoughts: bool
) -> Usage:
    """Return what a later attempt adds to an answer of which the client has ``before``.

    ``reported`` is what its provider says of the attempt, ``new`` an estimate of the tokens that are new to the client,
    ``behind`` of those that came after the report of a stream that broke.  ``done``: it has brought the answer to its
    end.  ``afresh``: it said the answer from the beginning.  ``thoughts``: the client has nothing but reasoning, and
    gets none of this attempt's.
    """
    if not (done or new or thoughts):
        return Usage(basis=before.basis)  # whatever the attempt has said, the client has none of it
    if reported is None:
        return Usage(0, new)
    if afresh and done and not thoughts:
        return reported.minus(before)  # it has been all said again, and counted by its provider
    completion, reasoning = reported.completion + behind, reported.reasoning
    prompt, cached, cache_write = reported.prompt, reported.cached, reported.cache_write
    if thoughts:
        completion, reasoning = completion - reasoning, before.completion - before.reasoning
    elif afresh:
        completion, reasoning = max(0, completion - before.completion), reasoning - before.reasoning
    else:  # the text that it was given is no prompt of the client's, and was counted where it was written
        prompt = max(0, prompt - before.completion) or min(prompt, before.prompt)
        cached, cache_write = before.cached, before.cache_write
    if before.basis == "provider":
        prompt, cached, cache_write = before.prompt, before.cached, before.cache_write
    return Usage(
        prompt - before.prompt, completion, cached - before.cached, cache_write - before.cache_write, reasoning,
        "estimated" if behind else before.basis,
    )  # fmt: skip


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
