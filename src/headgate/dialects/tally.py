"""Estimate the tokens of a text by its characters, if no provider has reported them.

ASCII has about four bytes a token, other text about two and a half.  Most upstreams send one token an event; then the
number of events is the better figure.  But some send single characters, others whole sentences.  So events count only
if they are about as long as tokens, by the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from typing import Generic, NamedTuple, TypeVar

from headgate.errors import UPSTREAM_HOLLOW, GatewayError
from headgate.model import Usage
from headgate.wire import codec

SAMPLE = 16 << 10
_ASCII, _REST = 4, 2.5  # bytes per token
_LONGEST, _SHORTEST = 1.8, 0.4  # estimated tokens in a piece that may be one token; a character has 0.25
_FEW = 4  # tokens: an estimate of fewer proves nothing


class Tally(NamedTuple):
    """The amount streamed so far: pieces, their bytes in JSON, and the bytes of content among them."""

    pieces: int = 0
    size: int = 0
    content: int = 0


NO_TEXT = Tally()


THOUGHTS = frozenset(("reasoning_content", "reasoning", "reasoning_details"))  # visible, but not the answer
CALLS = frozenset(("tool_calls", "function_call"))
MOST_HELD = 8 << 20  # bytes
MOST_KEPT = 96 << 10  # bytes of text: an answer longer than this, about 24,000 tokens, is not continued


TELLING = ("length", "content_filter")  # finish reasons that explain an empty answer
_LEAST_ROOM = 4 << 10


class ClientView:
    """The visible part of an answer, and an estimate of its tokens.  Knows no API.

    ``members``: the members of a chat delta in which it is visible.  ``pieces`` and ``size``: its number of deltas and
    their bytes.  ``content_json``: the exact content in JSON's form, which most streams send; None if it is not kept
    (too long, or not needed).  A stream may add to all of these by itself.
    """

    __slots__ = ("_saved", "content_json", "members", "pieces", "room", "size")

    def __init__(self, *, keep: bool) -> None:
        self.members: set[str] = set()
        self.pieces = 0
        self.size = 0
        self.content_json: bytearray | None = bytearray() if keep else None
        self.room = MOST_KEPT  # bytes of ``content_json`` above which ``bound`` checks it
        self._saved = 0  # bytes that removed escapes have saved

    @property
    def now(self) -> Tally:
        content_json = self.content_json
        return Tally(self.pieces, self.size, len(content_json) + self._saved if content_json is not None else 0)

    @property
    def text(self) -> str | None:
        return codec.as_text(b'"%b"' % bytes(self.content_json)) if self.content_json is not None else None

    @property
    def estimate(self) -> int:
        """Estimated tokens of all of it: a quick figure."""
        return count(self.pieces, self.size / _ASCII)

    @property
    def is_hollow(self) -> bool:
        """True if it contains at most reasoning."""
        return self.members <= THOUGHTS

    def add(self, kind: str, size: int, text: str = "") -> None:
        """One delta of ``size`` bytes; ``text`` is its content."""
        self.members.add(kind)
        self.pieces += 1
        self.size += size
        if text and self.content_json is not None:
            self.content_json += codec.encode(text)[1:-1]
            if len(self.content_json) > self.room:
                self.bound()

    def bound(self) -> None:
        """Drop a text that is too long.  JSON escapes do not count: they are removed."""
        content_json, text = self.content_json, self.text
        if content_json is None or text is None or len(text.encode(errors="surrogatepass")) > MOST_KEPT:
            self.content_json = None
            return
        plain = codec.encode(text)[1:-1]
        self._saved += len(content_json) - len(plain)
        content_json[:] = plain
        self.room = len(plain) + max(MOST_KEPT - len(text.encode(errors="surrogatepass")), _LEAST_ROOM)

    def since(self, before: Tally, now: Tally) -> int:
        """Return the estimated tokens between the two states."""
        size = (now.size - before.size) / _ASCII
        content = now.content - before.content
        if content > 0 and self.content_json is not None:
            text = codec.as_text(b'"%b"' % bytes(self.content_json[max(0, before.content - self._saved) :]))
            if text is not None:
                size += estimate(text) - content / _ASCII
        return count(now.pieces - before.pieces, size)

    def resumed(self, at: Tally, kinds: Set[str]) -> ClientView:
        """Return a view of the same text, counted up to ``at``, for another attempt that sends the rest."""
        other = ClientView(keep=False)
        other.content_json, other.room, other._saved = self.content_json, self.room, self._saved
        other.pieces, other.size = at.pieces, at.size
        other.members = self.members & kinds
        return other

    def forget_text(self) -> None:
        """Drop the text: this answer will not be continued."""
        self.content_json = None


_Item = TypeVar("_Item")


class Held(Generic[_Item]):
    """The part of an answer that is held back until it is complete, so that another attempt can still send it.

    ``scope``: ``tools`` (from the first tool call on), ``all``, or empty for nothing.  ``items``: the held part, as
    events or as deltas; None while nothing is held.  ``size_of``: the memory of one of them (bytes).
    """

    __slots__ = ("_measured", "_size", "_size_of", "items", "scope")

    def __init__(self, scope: str, size_of: Callable[[_Item], int]) -> None:
        self.scope = scope
        self.items: list[_Item] | None = [] if scope == "all" else None
        self._size_of = size_of
        self._size = self._measured = 0

    def starts_at(self, members: Set[str]) -> bool:
        """True if an answer that is visible in ``members`` has now reached the part that is held."""
        return self.scope == "tools" and self.items is None and not CALLS.isdisjoint(members)

    def release(self, *, done: bool, quiet: float) -> list[_Item] | None:
        """Return the held part if it is due, and hold nothing from then on; None if it is not due, or if none is held.

        It is due if the answer is ``done``, or if more than MOST_HELD is held.  Tool calls are due at the finish reason
        too, so that a client need not wait for the usage behind it: ``quiet`` is that of ``ports.StreamBridge``.
        """
        items = self.items
        if items is None:
            return None
        is_complete = done or (self.scope == "tools" and 0.0 < quiet < math.inf)
        if not is_complete and self._measure(items) <= MOST_HELD:
            return None
        self.scope, self.items = "", None
        return items

    def _measure(self, items: list[_Item]) -> int:
        """Return the bytes of all items.  Each is measured once."""
        self._size += sum(map(self._size_of, items[self._measured :]))
        self._measured = len(items)
        return self._size


def hollow_answer(provider: str) -> GatewayError:
    """Return the error of an answer without anything to see in it."""
    return GatewayError(UPSTREAM_HOLLOW, f"{provider} answered with nothing: no text, no tool call, no refusal.")


def added(
    before: Usage, reported: Usage | None, new: int, *, behind: int = 0, done: bool, afresh: bool, thoughts: bool
) -> Usage:
    """Return the usage that a later attempt adds to an answer; the client has ``before``.

    ``reported`` is what its provider says of the attempt, ``new`` an estimate of the tokens that are new to the client,
    ``behind`` of those that came after the report of a stream that broke.  ``done``: it has brought the answer to its
    end.  ``afresh``: it said the answer from the beginning.  ``thoughts``: the client has nothing but reasoning, and
    gets none of this attempt's.
    """
    if not (done or new or thoughts):
        return Usage(basis=before.basis)  # the client has nothing of this attempt
    if reported is None:
        return Usage(0, new)
    if afresh and done and not thoughts:
        return reported.minus(before)  # its provider has counted the whole answer
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
    """Return the tokens of a text that came in so many pieces, from their number and the estimate of its length."""
    if pieces * _SHORTEST <= estimated <= pieces * _LONGEST:
        return pieces
    if abs(pieces - estimated) <= _FEW:
        return max(pieces, int(estimated))
    return max(1, round(estimated)) if pieces else 0
