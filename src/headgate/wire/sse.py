"""Server-sent events ⇄ bytes (WHATWG HTML §9.2.6), without the meaning of an event.

``Decoder`` takes a body cut anywhere and returns its events; it reads every byte once, in pieces of any size.  Data
stays bytes: the dialect decides whether it is UTF-8 or JSON.  Five things go beyond the standard:

- A field named ``error`` is reported, because one server reports its failures so.
- ``close()`` returns the unfinished event at the end of the body, which the standard drops.
- Payloads without a blank line between them are separate events.  No JSON value contains a line break between ``}`` and
  ``{``, and ``[DONE]`` is always one payload.  After the first such case, each line of the stream is an event at once.
- Lines of JSON without ``data:`` (NDJSON, or an error after the events) are events, except between lines of data that
  belong together.
- A field may be indented by blanks: one server indents its template for events.
"""

from __future__ import annotations

from msgspec import Struct

_BOM = b"\xef\xbb\xbf"
_DONE = b"[DONE]"
_INDENT = (b" ", b"\t")


class Event(Struct, gc=False):
    """One event.  ``name`` is empty if the stream gave none (the standard's ``message``).

    ``id`` is the stream's last event id so far.  ``error`` holds the value of an ``error:`` field; a standard parser
    would not report an event without other fields (``data`` empty).
    """

    data: bytes
    name: bytes = b""
    id: bytes = b""
    error: bytes = b""


class Decoder:
    """Bytes in, events out.

    ``max_event`` bounds one event, comment or line, in bytes.  Past it ``overflowed`` is set, the events before are
    returned and all later bytes are ignored.  ``fresh`` says that the next byte begins an event and nothing is
    pending.  ``retry`` is the last reconnection time that the stream asked for, in milliseconds.
    """

    __slots__ = (
        "_after_cr",
        "_data",
        "_error",
        "_id",
        "_indented",
        "_line",
        "_line_by_line",
        "_name",
        "_named",
        "_size",
        "_started",
        "fresh",
        "max_event",
        "overflowed",
        "retry",
    )

    def __init__(self, max_event: int = 8 << 20) -> None:
        self.max_event = max_event
        self.overflowed = False
        self.fresh = True
        self.retry: int | None = None
        self._started = False  # the bytes of a byte order mark have passed
        self._line = bytearray()  # the line that has begun
        self._after_cr = False  # a CR ended the last line: an LF that follows belongs to it
        self._data: list[bytes] = []
        self._size = 0  # of what is in _data
        self._name = b""
        self._named = b""  # the name when _data began
        self._id = b""
        self._error = b""
        self._indented = False  # the fields of this event are indented
        self._line_by_line = False  # this stream has no blank lines between payloads

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that ``data`` completes."""
        if (
            self.fresh and data[:6] == b"data: " and data[-2:] == b"\n\n" and data.count(b"\n") == 2
            and len(data) - 2 <= self.max_event and b"\r" not in data
        ):  # fmt: skip  # the common case: one whole event of one line
            self._started = True
            return [Event(data[6:-2], b"", self._id)]
        if not data or self.overflowed:
            return []
        events: list[Event] = []
        self._feed_lines(data, events)
        pending = self._line or self._data or self._name or self._error or self._after_cr
        self.fresh = self._started and not (pending or self.overflowed)
        return events

    def close(self) -> list[Event]:
        """Return the event that the end of the body left unfinished, if any.  A standard parser drops it."""
        events: list[Event] = []
        if not self.overflowed:
            self._field(bytes(self._line), events)
            self._dispatch(events)
        self._line = bytearray()
        return events

    def _feed_lines(self, data: bytes, events: list[Event]) -> None:
        if not self._started:
            data = bytes(self._line) + data
            self._line.clear()
            if len(data) < 3 and _BOM.startswith(data):
                self._line += data
                return
            self._started = True
            data = data.removeprefix(_BOM)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data[-1] == 13
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *lines = data.split(b"\n")
        self._line += first
        if not lines:
            self._check(len(self._line))
            return
        rest = lines.pop()
        self._take(bytes(self._line), events)
        for line in lines:
            if self.overflowed:
                return
            self._take(line, events)
        self._line = bytearray(rest)
        self._check(len(rest))

    def _take(self, line: bytes, events: list[Event]) -> None:
        if not line:
            self._dispatch(events)
        elif self._check(len(line)):
            self._field(line, events)

    def _check(self, length: int) -> bool:
        """True if a line of ``length`` bytes still fits.  The result does not depend on the line's splits."""
        if self._size + length > self.max_event:
            self.overflowed = True
        return not self.overflowed

    def _field(self, line: bytes, events: list[Event]) -> None:
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._add(value, events)
        elif name[:1] == b"{" and line.rstrip()[-1:] == b"}" and (not self._data or _ends(self._data[-1])):
            self._add(line, events)
            self._dispatch(events)
        elif name == b"event":
            self._name = value
        elif name == b"id":
            if b"\0" not in value:
                self._id = value
        elif name == b"retry":
            if value.isdigit() and len(value) <= 12:
                self.retry = int(value)
        elif name == b"error":
            self._error = value
        elif name[:1] in _INDENT and (self._indented or not self._data):  # else it is another field, and ignored
            self._field(line.lstrip(b" \t"), events)
            self._indented = True

    def _add(self, value: bytes, events: list[Event]) -> None:
        """Add one line of data.  If it cannot continue the lines before, those are an event."""
        if not self._data:
            self._named = self._name
        elif (value.lstrip()[:1] == b"{" or value[:6] == _DONE) and _ends(self._data[-1]):
            later = self._name  # it came after the lines before: it belongs to this line
            self._name = self._named
            self._dispatch(events)
            self._name = self._named = later if later != self._named else b""
            self._line_by_line = True
        self._data.append(value)
        self._size += len(value) + 1
        if self._line_by_line and len(self._data) == 1 and value.lstrip()[:1] in b"{[" and _ends(value):
            self._dispatch(events)

    def _dispatch(self, events: list[Event]) -> None:
        data = self._data
        if data or self._error:
            joined = data[0] if len(data) == 1 else b"\n".join(data)
            events.append(Event(joined, self._name, self._id, self._error))
            self._data = []
            self._size = 0
            self._error = b""
            self._indented = False
        self._name = b""


def _ends(line: bytes) -> bool:
    """True if ``line`` may be the end of a payload."""
    return line.rstrip()[-1:] == b"}" or line[:6] == _DONE


def encode(data: bytes, *, event: bytes = b"", id: bytes = b"") -> bytes:
    """Return a whole event.  ``data`` may contain line feeds, ``event`` and ``id`` not; empty ones are left out."""
    head = b""
    if id:
        head = b"id: " + id + b"\n"
    if event:
        head += b"event: " + event + b"\n"
    return head + b"data: " + (data.replace(b"\n", b"\ndata: ") if b"\n" in data else data) + b"\n\n"


def comment(text: bytes) -> bytes:
    """Return a comment of one line with its blank line: it keeps proxies from closing, and every client ignores it."""
    return b": " + text + b"\n\n"
