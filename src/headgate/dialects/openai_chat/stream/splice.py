"""Chunks that differ from the one before in nothing but their text: recognised and re-emitted without parsing.

Most chunks of a stream are the same bytes around a new piece of text.  After one has been parsed the slow way, a
``Template`` holds the bytes before and after its text, of the input and of the output.  Matching bytes, with a text of
printable characters and whole escapes, are one JSON string in the same place.  The text cannot end the string, so the
other members of the chunk are unchanged.  Anything else (an error, a finish, a role, usage,
half of a surrogate pair, bad UTF-8) does not match, and goes the slow way.
"""

from __future__ import annotations

import re

from msgspec import Raw

_DATA = b"data: "
_END = b"\n\n"
_PATIENCE = 8
# The inside of a JSON string (RFC 8259 §7) up to its quote.  Escaped surrogates are left to the slow way: one alone
# would have to be mended.
_STRING = re.compile(rb'(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}))*')


class Template:
    """The learnt form of one stream's chunks.

    ``learn`` gives up after eight templates in a row that served for nothing: some servers change every chunk.
    """

    __slots__ = ("_end", "_head", "_hole", "_middle", "_out_head", "_out_middle", "_wasted", "known")

    def __init__(self) -> None:
        self.known = False
        self._wasted = 0
        self._head = self._middle = self._end = b""
        self._out_head = self._out_middle = b""
        self._hole = False

    def forget(self) -> None:
        """Drop the template, after a change of the stream's state: the slow way may now give another result."""
        self.known = False

    def learn(self, data: bytes, out: bytes, key: str, text: Raw, last: str, last_value: Raw) -> None:
        """``data`` is an event's JSON, ``out`` the chunk made of it, ``text`` the value of ``key`` in either's delta.

        ``last`` is the last member of the top level.  A string there may change with each chunk (OpenAI's
        ``obfuscation``), and is then passed on unchanged.
        """
        if self._wasted >= _PATIENCE or b"\\" in data or b"\\" in out:
            return
        # Without a backslash every quote begins or ends a string, so `"key":` can be nothing but a member's name.
        name = b'"' + key.encode() + b'"'
        if data.count(name) != 1 or out.count(name) != 1:
            return
        start = _text_of(data, name, bytes(text))
        out_start = _text_of(out, name, bytes(text))
        if start < 0 or out_start < 0:
            return
        self._wasted += 1
        length = len(text) - 2
        self._head = _DATA + data[:start]
        self._middle = data[start + length :] + _END
        self._out_head = _DATA + out[:out_start]
        self._out_middle = out[out_start + length :] + _END
        self._hole = False
        self._end = b""
        self._open_hole(last, bytes(last_value))
        self.known = True

    def _open_hole(self, last: str, value: bytes) -> None:
        member = b'"' + last.encode() + b'":' + value + b"}" + _END
        in_both = self._middle.endswith(member) and self._out_middle.endswith(member)
        if in_both and last in ("obfuscation", "p") and value[:1] == b'"':
            behind = len(value) - 1 + len(b"}" + _END)  # of the string's first quote
            self._middle = self._middle[:-behind]
            self._out_middle = self._out_middle[:-behind]
            self._end = b'"}' + _END
            self._hole = True

    def splice(self, data: bytes, at: int, parts: list[bytes]) -> tuple[int, bytes]:
        """Appends the re-emitted event that begins at ``at`` to ``parts``; (where the next one begins, its text).

        (``at``, nothing) where it does not match.
        """
        head = self._head
        if not data.startswith(head, at):
            return at, b""
        start = at + len(head)
        quote = data.find(b'"', start)
        middle = self._middle
        if data.find(b"\\", start, quote) >= 0:
            inside = _STRING.match(data, start)
            quote = inside.end() if inside is not None else -1
        if quote <= start or not data.startswith(middle, quote):
            return at, b""
        text = data[start:quote]
        if not _is_plain(text):
            return at, b""
        after = quote + len(middle)
        if not self._hole:
            parts += (self._out_head, text, self._out_middle)
        else:
            quote = data.find(b'"', after)
            filling = data[after:quote]
            if quote < after or b"\\" in filling or not data.startswith(self._end, quote) or not _is_plain(filling):
                return at, b""
            parts += (self._out_head, text, self._out_middle, filling, self._end)
            after = quote + len(self._end)
        self._wasted = 0
        return after, text


def _text_of(data: bytes, name: bytes, text: bytes) -> int:
    """Where, in ``data``, the text of the string ``text`` begins that is the value of ``name``; -1 where it is not."""
    at = data.find(name + b":" + text)
    if at >= 0:
        return at + len(name) + 2
    at = data.find(name + b": " + text)
    return at + len(name) + 3 if at >= 0 else -1


def _is_plain(text: bytes) -> bool:
    """Whether ``text`` is UTF-8 without control characters."""
    try:
        return text.decode().isprintable()
    except UnicodeDecodeError:
        return False
