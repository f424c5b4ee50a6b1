"""What a body is, whatever its media type says: events, lines of JSON, one JSON document, or something else.

``Sniffer`` looks at how a body begins, ``Lines`` makes events of lines (NDJSON), ``document`` takes off a document what
servers put around it.  Pure, and without knowledge of what the JSON means.
"""

from __future__ import annotations

from enum import Enum

from headgate.wire import codec, sse

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n\x1e"  # with the record separator of RFC 7464
_FIELDS = (b"data", b"event", b"id", b"retry", b"error")
_LONGEST_FIELD = 6
_MOST_LOOKED_AT = 1 << 20
_OBJECT, _ARRAY, _COMMENT = b"{", b"[", b":"


class Form(Enum):
    EVENTS = "server-sent events"
    LINES = "one JSON object a line"
    DOCUMENT = "one JSON document"
    OTHER = "something else"


class Sniffer:
    """Finds the form of a body from its first bytes, however they are cut.

    Blank lines, a byte order mark and comments come before a body of any form.  A ``{`` begins a document; where the
    first line ends with ``}`` and the next begins with ``{``, the body is lines.  ``lines``: the media type says so
    already, so that the second line need not be waited for.
    """

    __slots__ = ("_begun", "_comment", "_lines", "_open", "_seen", "_tail", "_word", "form")

    def __init__(self, lines: bool = False) -> None:
        self.form: Form | None = None
        self._lines = lines
        self._seen = 0
        self._begun = False  # the byte order mark is settled
        self._comment = False
        self._word = b""  # the first bytes that are no blank
        self._open = False  # an object has begun
        self._tail = b""  # the last byte of its first line that is no blank, once that line has ended

    def feed(self, data: bytes) -> Form | None:
        """The form, as soon as it is certain."""
        if self.form is None:
            self._seen += len(data)
            self.form = self._of_object(data) if self._open else self._of_beginning(data)
            if self.form is None and self._seen > _MOST_LOOKED_AT:
                self.form = self.finish()
        return self.form

    def finish(self) -> Form:
        """The form of a body that has ended."""
        if self.form is None:
            self.form = Form.DOCUMENT if self._open else Form.OTHER
        return self.form

    def _of_beginning(self, data: bytes) -> Form | None:
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
        if data[:1] == _ARRAY:
            return Form.DOCUMENT
        return self._of_field(data)

    def _of_field(self, data: bytes) -> Form | None:
        name = data[:_LONGEST_FIELD]
        for end in (b":", b"\n", b"\r"):
            name = name.partition(end)[0]
        if len(name) < len(data[:_LONGEST_FIELD]):
            return Form.EVENTS if name.rstrip() in _FIELDS else Form.OTHER
        if len(name) == _LONGEST_FIELD or not any(field.startswith(name) for field in _FIELDS):
            return Form.OTHER
        self._word = data
        return None

    def _of_object(self, data: bytes) -> Form | None:
        if not self._tail.endswith(b"\n"):
            line, ended, data = data.partition(b"\n")
            last = line.rstrip(_BLANK)[-1:]
            if last:
                self._tail = last
            if not ended:
                return None
            if self._tail != b"}":
                return Form.DOCUMENT
            if self._lines:
                return Form.LINES
            self._tail += b"\n"
        data = data.lstrip(_BLANK)
        if not data:
            return None
        return Form.LINES if data[:1] == _OBJECT else Form.DOCUMENT


def form_of(body: bytes, lines: bool = False) -> Form:
    """The form of a whole body."""
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


def _event(line: bytes) -> bytes:
    line = line.strip(_BLANK).removeprefix(_BOM)
    if not line or line[:1] == _COMMENT:
        return b""
    if line[:5] == b"data:":
        line = line[5:].strip(_BLANK)
    return sse.encode(line)


def document(body: bytes) -> bytes:
    """A JSON document without the blanks, comments and byte order mark before it, and the ``[DONE]`` behind it."""
    body = body.removeprefix(_BOM).strip(_BLANK)
    while body[:1] == _COMMENT:
        body = body.partition(b"\n")[2].lstrip(_BLANK)
    if body.endswith(b"[DONE]"):
        shorter = body[: -len(b"[DONE]")].rstrip(_BLANK).removesuffix(b"data:").rstrip(_BLANK)
        while shorter.endswith((b"event: done", b"event:done", b"id:")):
            shorter = shorter.rpartition(b"\n")[0].rstrip(_BLANK)
        if shorter[-1:] in (b"}", b"]"):
            return shorter
    return body


def as_events(body: bytes, form: Form) -> bytes:
    """A whole body of any form but ``OTHER`` as events."""
    if form is Form.LINES:
        lines = Lines()
        return lines.feed(body.removeprefix(_BOM)) + lines.close()
    if form is not Form.DOCUMENT:
        return body
    whole = document(body)
    done = sse.encode(b"[DONE]") if codec.as_object(codec.repair(whole)) is not None else b""
    return sse.encode(whole) + done
