"""The form of a body, independent of its media type: events, lines of JSON, a JSON array, one JSON document, or
another.

``Sniffer`` finds the form from the first bytes.  ``Lines`` makes events of lines (NDJSON), ``Items`` of an array's
objects.  ``document`` removes the extras that servers put around a document.  Pure, and without knowledge of the
JSON's meaning.
"""

from __future__ import annotations

import re
from enum import Enum

from headgate.wire import codec, sse

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n\x1e"  # with the record separator of RFC 7464
_FIELDS = (b"data", b"event", b"id", b"retry", b"error")
_LONGEST_FIELD = 6
_MOST_LOOKED_AT = 1 << 20
_OBJECT, _ARRAY, _COMMENT = b"{", b"[", b":"
_AROUND_ITEMS = _BLANK + b',[]"'
_LINE_END = re.compile(rb"[\r\n]")
_MARK = re.compile(rb'["{}]')
_IN_STRING = re.compile(rb'["\\]')


class BodyForm(Enum):
    EVENTS = "server-sent events"
    LINES = "one JSON object a line"
    ITEMS = "one JSON array of objects"
    DOCUMENT = "one JSON document"
    OTHER = "something else"


class Sniffer:
    """Finds the form of a body from its first bytes, independent of their splits.

    Blank lines, a byte order mark and comments come before a body of any form.  A ``{`` begins a document.  If
    the first line ends with ``}`` and the next begins with ``{``, the body is lines.  A ``[`` and then a ``{`` begin an
    array of objects.  ``lines``: the media type announces lines, so the second line is not waited for.
    """

    __slots__ = ("_begun", "_comment", "_lines", "_open", "_scanned", "_tail", "_word", "form")

    def __init__(self, lines: bool = False) -> None:
        self.form: BodyForm | None = None
        self._lines = lines
        self._scanned = 0
        self._begun = False  # the bytes of a byte order mark have passed
        self._comment = False
        self._word = b""  # the first bytes that are no blank
        self._open = False  # an object has begun
        self._tail = b""  # the last byte of its first line that is no blank, once that line has ended

    def feed(self, data: bytes) -> BodyForm | None:
        """Return the form as soon as it is certain."""
        if self.form is None:
            self._scanned += len(data)
            self.form = self._of_object(data) if self._open else self._of_beginning(data)
            if self.form is None and self._scanned > _MOST_LOOKED_AT:
                self.form = self.finish()
        return self.form

    def finish(self) -> BodyForm:
        """Return the form of a body that has ended."""
        if self.form is None:
            self.form = BodyForm.DOCUMENT if self._open or self._word == _ARRAY else BodyForm.OTHER
        return self.form

    def _of_beginning(self, data: bytes) -> BodyForm | None:
        data = self._word + data
        self._word = b""
        if not self._begun:
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._word = data
                return None
            self._begun = True
            data = data.removeprefix(_BOM)
        while True:
            if self._comment:
                _, ended, data = data.partition(b"\n")
                if not ended:
                    return None
                self._comment = False
            data = data.lstrip(_BLANK)
            if not data:
                return None
            if data[:1] != _COMMENT:
                break
            self._comment = True
        if data[:1] == _OBJECT:
            self._open = True
            return self._of_object(data)
        return self._of_array(data) if data[:1] == _ARRAY else self._of_field(data)

    def _of_array(self, data: bytes) -> BodyForm | None:
        """An array of objects may come item by item; ``[1]`` and ``[DONE]`` are documents."""
        inside = data[1:].lstrip(_BLANK)
        if not inside:
            self._word = _ARRAY
            return None
        return BodyForm.ITEMS if inside[:1] == _OBJECT else BodyForm.DOCUMENT

    def _of_field(self, data: bytes) -> BodyForm | None:
        name = data[:_LONGEST_FIELD]
        for end in (b":", b"\n", b"\r"):
            name = name.partition(end)[0]
        if len(name) < len(data[:_LONGEST_FIELD]):
            return BodyForm.EVENTS if name.rstrip() in _FIELDS else BodyForm.OTHER
        if len(name) == _LONGEST_FIELD or not any(field.startswith(name) for field in _FIELDS):
            return BodyForm.OTHER
        self._word = data
        return None

    def _of_object(self, data: bytes) -> BodyForm | None:
        if not self._tail.endswith(b"\n"):
            line, ended, data = data.partition(b"\n")
            last = line.rstrip(_BLANK)[-1:]
            if last:
                self._tail = last
            if not ended:
                return None
            if self._tail != b"}":
                return BodyForm.DOCUMENT
            if self._lines:
                return BodyForm.LINES
            self._tail += b"\n"
        data = data.lstrip(_BLANK)
        if not data:
            return None
        return BodyForm.LINES if data[:1] == _OBJECT else BodyForm.DOCUMENT


def form_of(body: bytes, lines: bool = False) -> BodyForm:
    """Return the form of a whole body."""
    sniffer = Sniffer(lines)
    return sniffer.feed(body) or sniffer.finish()


class Lines:
    """Lines of JSON in, events out.  A line that is an event's field already passes as it is."""

    __slots__ = ("_line", "size")

    def __init__(self) -> None:
        self._line: list[bytes] = []
        self.size = 0  # of the line that has begun

    def feed(self, data: bytes) -> bytes:
        first, *rest = data.split(b"\n")
        self._line.append(first)
        self.size += len(first)
        if not rest:
            return b""
        last = rest.pop()
        lines = [b"".join(self._line), *rest]
        self._line = [last]
        self.size = len(last)
        return b"".join(map(_event, lines))

    def close(self) -> bytes:
        line, self._line = b"".join(self._line), []
        return _event(line)


class Items:
    """The objects of a JSON array in, events out, as soon as each is complete.

    Text between the objects that belongs to no array is an event too: a server's error.  An array that
    was closed is a whole answer, as a document is, and ends with ``[DONE]``.
    """

    __slots__ = ("_closed", "_depth", "_escaped", "_item", "_string", "size")

    def __init__(self) -> None:
        self._item: list[bytes] = []  # the object that has begun, or the text between two
        self._depth = 0
        self._string = self._escaped = False
        self._closed = False
        self.size = 0  # of the item that has begun

    def feed(self, data: bytes) -> bytes:
        events: list[bytes] = []
        begin = at = 0
        while at < len(data):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            # Outside of objects there are no strings: an apostrophe or a quote in an error's text must not open one.
            pattern = _IN_STRING if self._string else _MARK
            mark = pattern.search(data, at) if self._depth else None
            found = data.find(_OBJECT, at) if not self._depth else mark.start() if mark is not None else -1
            if found < 0:
                break
            at = found + 1
            what = data[found:at]
            if what == b'"':
                self._string = not self._string
            elif what == b"\\":
                self._escaped = True
            elif what == _OBJECT:
                if not self._depth:
                    events.append(self._between(data[begin:found]))
                    begin = found
                self._depth += 1
            else:
                self._depth -= 1
                if not self._depth:
                    events.append(self._whole(data[begin:at]))
                    begin = at
        self._item.append(data[begin:])
        self.size += len(data) - begin
        return b"".join(events)

    def close(self) -> bytes:
        """Return the rest at the end of the body: an item that was cut off, or the end of the array."""
        if self._depth:
            return self._whole(b"")
        rest = self._between(b"")
        return rest + sse.encode(b"[DONE]") if self._closed else rest

    def _whole(self, last: bytes) -> bytes:
        item = b"".join((*self._item, last)).replace(b"\r", b" ")
        self._start_over()
        return sse.encode(item)

    def _between(self, last: bytes) -> bytes:
        text = b"".join((*self._item, last))
        self._start_over()
        self._closed = b"]" in text
        lines = (line.strip(_AROUND_ITEMS).removeprefix(b"data:") for line in _LINE_END.split(text))
        return b"".join(map(_event, (line for line in lines if line.strip(_AROUND_ITEMS) != b"DONE")))

    def _start_over(self) -> None:
        self._item.clear()
        self.size = 0


def _event(line: bytes) -> bytes:
    line = line.strip(_BLANK).removeprefix(_BOM)
    if not line or line[:1] == _COMMENT:
        return b""
    if line[:5] == b"data:":
        line = line[5:].strip(_BLANK)
    return sse.encode(line)


def beginning(body: bytes) -> bytes:
    """Return a body without leading blanks, comments and byte order mark."""
    body = body.removeprefix(_BOM).lstrip(_BLANK)
    while body[:1] == _COMMENT:
        body = body.partition(b"\n")[2].lstrip(_BLANK)
    return body


def document(body: bytes) -> bytes:
    """Return a JSON document without the extras before it, and without the ``[DONE]`` after it."""
    body = beginning(body).rstrip(_BLANK)
    if body.endswith(b"[DONE]"):
        shorter = body[: -len(b"[DONE]")].rstrip(_BLANK).removesuffix(b"data:").rstrip(_BLANK)
        while shorter.endswith((b"event: done", b"event:done", b"id:")):
            shorter = shorter.rpartition(b"\n")[0].rstrip(_BLANK)
        if shorter[-1:] in (b"}", b"]"):
            return shorter
    return body


def as_events(body: bytes, form: BodyForm) -> bytes:
    """Return a whole body of any form but ``OTHER`` as events."""
    if form in (BodyForm.LINES, BodyForm.ITEMS):
        pieces = Lines() if form is BodyForm.LINES else Items()
        return pieces.feed(beginning(body)) + pieces.close()
    if form is not BodyForm.DOCUMENT:
        return body
    whole = document(body)
    done = sse.encode(b"[DONE]") if codec.as_object(codec.repair(whole)) is not None else b""
    return sse.encode(whole) + done
