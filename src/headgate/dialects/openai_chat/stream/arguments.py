"""The arguments of one tool call so far: the tests for their end, and for repetitions."""

from __future__ import annotations

import re

from headgate.wire import codec

EMPTY = "{}"
_MOST_KEPT = 1 << 20  # characters of one call's arguments that are kept, to tell whether they are JSON
_MARKS = re.compile(r'["\\{}\[\]]')
_IN_STRING = re.compile(r'["\\]')


class Arguments:
    """The arguments of one call so far.

    ``size``: characters.  ``complete``: they are one whole JSON object or array, by brackets and quotes alone, so that
    each character is read once.  ``doubled``: another value begins after that one.
    """

    __slots__ = ("_depth", "_escaped", "_in_string", "_pieces", "complete", "doubled", "first", "size")

    def __init__(self) -> None:
        self.size = 0
        self.complete = False
        self.doubled = False
        self.first = ""
        self._pieces: list[str] = []
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def add(self, piece: str) -> None:
        if not self.size:
            self.first = piece
        self.size += len(piece)
        if self.size <= _MOST_KEPT:
            self._pieces.append(piece)
        at = 0
        if self._escaped and piece:
            at = 1
            self._escaped = False
        while (found := (_IN_STRING if self._in_string else _MARKS).search(piece, at)) is not None:
            mark = found[0]
            at = found.end()
            if mark == '"':
                self._in_string = not self._in_string
            elif mark == "\\":
                self._escaped = at == len(piece)
                at += 1
            elif mark in "{[":
                self.doubled = self.doubled or self.complete
                self._depth += 1
            else:
                self._depth -= 1
                self.complete = self._depth == 0

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def take(self) -> str:
        """Return all of them, and start again."""
        text = self.text
        Arguments.__init__(self)
        return text

    @property
    def sound(self) -> bool:
        """True if they are JSON, or empty."""
        text = self.text
        return self.size > _MOST_KEPT or not text.strip() or codec.is_json(text.encode("utf-8", "replace"))

    def repeats(self, piece: str, known: bool) -> bool:
        """True if ``piece`` repeats all arguments so far, perhaps with more: some servers send all of them each time.

        A value may contain its own beginning again: ``{"a":`` and then ``{"a":1}``.  ``known``: this server has
        repeated arguments before.
        """
        if not self.size or len(piece) < self.size or not piece.startswith(self.first) or self.size > _MOST_KEPT:
            return False
        nested = not known and not self._in_string and not self.complete and self.text.rstrip()[-1:] in (":", "[", ",")
        return not nested and self.first.lstrip()[:1] in "{[" and piece.startswith(self.text)

    def says_again(self, piece: str) -> bool:
        """True if ``piece``, after complete arguments, adds nothing: an empty object, or all of them again."""
        if piece.strip() == EMPTY or piece == self.text:
            return True
        return piece.lstrip()[:1] == "{" and self.size <= _MOST_KEPT and codec.are_alike(piece, self.text)
