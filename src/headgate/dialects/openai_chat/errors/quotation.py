"""Find words of the caller in an upstream's error: providers quote the request that they refuse.

Used only when a call has failed, and only if the error consists of words alone.  Texts are compared without case, white
space and punctuation.  So an escaped, shortened or differently spaced quotation is recognised.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from headgate.dialects.base import Quotable

MOST_SENT = 1 << 20  # bytes: a longer request is assumed to contain any word
_LONG = 60  # common letters in a row: too many for a coincidence
_BY_CHANCE = 8
_FARTHEST = 127  # letters compared on each side
_OURS = b'"stream_options":{"include_usage":true}'  # of every stream request that Headgate sends
_OPENING, _CLOSING = "\"'`“”‘’«»„<>[]{}():=", "\"'`“”‘’«»“<>[]{}()…"
_DROPPED = bytes(byte for byte in range(128) if not chr(byte).isalnum())


class Sent(NamedTuple):
    """Implements ``Quotable``."""

    headers: Mapping[bytes, bytes]
    body: bytes


_NOTHING = Sent({}, b"")


class Quotations:
    """The letters of one request, read when they are first needed."""

    __slots__ = ("_letters", "_places", "_sent")

    def __init__(self, sent: Quotable | None) -> None:
        self._sent = sent or _NOTHING
        self._letters: str | None = None
        self._places: tuple[str, list[int], str] = ("", [], "")  # of the last text

    def hold(self, *words: str) -> bool:
        """True if the request contains one of ``words``, or is too long to search."""
        if len(self._sent.body) > MOST_SENT:
            return True
        letters = self._text()
        return any((part := _plain(one)) and part in letters for one in words)

    def cover(self, text: str, start: int, end: int) -> bool:
        """True if ``text[start:end]`` is part of a quotation of the request: the common text there is long, or it
        stands between quotation marks.
        """
        common = self._common(text, start, end)
        if common is None:
            return False
        begin, stop, letters = common
        before, behind = text[:begin].rstrip()[-1:], text[stop:].lstrip()[:1]
        if not before and not behind:
            return False  # the whole message: a message is more than a quotation
        marked = (before and before in _OPENING) or (behind and behind in _CLOSING)
        return bool(marked) or (bool(before) and letters >= _LONG)

    def go_on(self, text: str, start: int, end: int) -> bool:
        """True if the request contains ``text[start:end]`` in the same context as ``text``."""
        common = self._common(text, start, end)
        return common is not None and common[2] - len(_plain(text[start:end])) > _BY_CHANCE

    def _common(self, text: str, start: int, end: int) -> tuple[int, int, int] | None:
        """Return start, end and letters of the common text around ``text[start:end]``; None if there is none."""
        if len(self._sent.body) > MOST_SENT:
            return None
        letters = self._text()
        if self._places[0] != text:
            counted = [place for place, char in enumerate(text) if _counts(char)]
            self._places = (text, counted, "".join(text[place].lower()[:1] for place in counted))
        _, places, plain = self._places
        first, last = bisect_left(places, start), bisect_left(places, end)
        if first == last or plain[first:last] not in letters:
            return None
        left = first - _most(min(first, _FARTHEST), lambda by: plain[first - by : last] in letters)
        right = last + _most(min(len(plain) - last, _FARTHEST), lambda by: plain[left : last + by] in letters)
        return places[left], places[right - 1] + 1, right - left

    def _text(self) -> str:
        if self._letters is None:
            headers = b"\n".join(self._sent.headers.values()).decode("latin-1")
            body = self._sent.body.replace(_OURS, b"", 1)
            self._letters = _plain(headers) + "\n" + _plain(_unescaped(body))
        return self._letters


def _most(most: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to ``most`` that ``fits``, as all smaller ones do."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _counts(char: str) -> bool:
    return char.isalnum() if char.isascii() else True


def _plain(text: str) -> str:
    """Return the letters and digits of ``text``, in lower case; other characters than ASCII stay."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return text.lower().encode(errors="surrogatepass").translate(None, _DROPPED).decode(errors="replace")


def _unescaped(body: bytes) -> str:
    """Return a JSON text without those escapes that occur in words."""
    if b"\\u" in body:
        try:
            body = msgspec.json.encode(msgspec.json.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    if b"\\" in body:
        body = body.replace(b"\\\\", b" ")
        for escape in (b"\\n", b"\\t", b"\\r", b"\\b", b"\\f"):
            body = body.replace(escape, b" ")
    return body.decode(errors="replace")
