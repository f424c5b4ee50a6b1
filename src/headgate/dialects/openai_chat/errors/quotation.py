"""Whether words of an upstream are its caller's own: providers quote the request that they refuse.

Looked at only when a call has failed, and only where an error says nothing but words.  Texts are compared without
case, white space and punctuation, so that an escaped, shortened or differently spaced quotation is one all the same.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from headgate.dialects.base import Quotable

MOST_SENT = 1 << 20  # bytes: a longer request is taken to hold whatever words there are
_LONG = 60  # letters in a row that are the request's as well: no chance makes that
_BY_CHANCE = 8
_FARTHEST = 127  # letters to each side that are compared
_OURS = b'"stream_options":{"include_usage":true}'  # of every stream that we ask for
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
        self._places: tuple[str, list[int], str] = ("", [], "")  # of the text that was looked at last

    def hold(self, *words: str) -> bool:
        """True if the request has one of ``words`` in it, or is too long to tell."""
        if len(self._sent.body) > MOST_SENT:
            return True
        letters = self._text()
        return any((part := _plain(one)) and part in letters for one in words)

    def cover(self, text: str, start: int, end: int) -> bool:
        """True if ``text[start:end]`` stands in a quotation of the request: what the two have in common there is long,
        or stands between quotation marks.
        """
        common = self._common(text, start, end)
        if common is None:
            return False
        begin, stop, letters = common
        before, behind = text[:begin].rstrip()[-1:], text[stop:].lstrip()[:1]
        if not before and not behind:
            return False  # all of it: a message that is nothing but a quotation would be none
        marked = (before and before in _OPENING) or (behind and behind in _CLOSING)
        return bool(marked) or (bool(before) and letters >= _LONG)

    def go_on(self, text: str, start: int, end: int) -> bool:
        """True if the request has ``text[start:end]`` in a context that ``text`` has as well."""
        common = self._common(text, start, end)
        return common is not None and common[2] - len(_plain(text[start:end])) > _BY_CHANCE

    def _common(self, text: str, start: int, end: int) -> tuple[int, int, int] | None:
        """Where ``text`` is the request's around ``text[start:end]``, and how many letters that is; None: nowhere."""
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
    """The largest number up to ``most`` that ``fits``, as do all below it."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _counts(char: str) -> bool:
    return char.isalnum() if char.isascii() else True


def _plain(text: str) -> str:
    """The letters and digits of ``text``, in lower case; what is not ASCII stays."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return text.lower().encode(errors="surrogatepass").translate(None, _DROPPED).decode(errors="replace")


def _unescaped(body: bytes) -> str:
    """A JSON text without its escapes, as far as words depend on them."""
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
