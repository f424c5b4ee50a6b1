"""A streamed body that is not plainly events: decode it, find its form, and turn it into events piece by piece.

It is made only for answers that need it.  It returns about 64 KiB at a time.  So a body of a few bytes that expands
without end meets a limit, or a slow client, like any other.
"""

from __future__ import annotations

from headgate.wire.bodies import coding, framing
from headgate.wire.bodies.coding import BodyDecoder, TooLargeError
from headgate.wire.bodies.framing import BodyForm, Items, Lines, Sniffer, as_events

_HEAD = 16


class Intake:
    """``feed`` it the bytes; ``read`` until it returns none; after ``finish`` that is the end.

    ``codings``: the ``Content-Encoding`` field.  ``lines``: the media type says lines.  ``most``: of a document, bytes.
    ``form`` is None until it is known.  ``pending`` says that ``read`` may have more to give.
    """

    def __init__(self, codings: bytes, *, lines: bool, most: int) -> None:
        self.form: BodyForm | None = None
        self._codings = codings
        self._decoder: BodyDecoder | None = None
        self._coding_known = False  # true when the first bytes have shown the coding
        self._sniffer = Sniffer(lines)
        self._pieces: Lines | Items | None = None  # of a body that has to be cut into events
        self._most = most
        self._input: list[bytes] = []
        self._held: list[bytes] = []  # decoded, until its form is known; then of a document, all of it
        self._size = 0
        self._finishing = self._over = False
        self.pending = False

    def feed(self, data: bytes) -> None:
        self.pending = True
        if self._coding_known and self._decoder is not None:
            self._decoder.feed(data)
        else:
            self._input.append(data)

    def finish(self) -> None:
        """End the body."""
        self.pending = self._finishing = True
        if self._decoder is not None:
            self._decoder.finish()

    def read(self) -> bytes:
        """Return events, or bytes of another form as they are; none if more has to come first.

        Raises CodingError for a body that cannot be decoded, and for a document or a line that is too large.
        """
        while self.pending:
            data = self._decoded()
            if not data:
                self.pending = False
                return self._rest() if self._finishing and not self._over else b""
            out = self._framed(data)
            if out:
                return out
        return b""

    def recognise(self, data: bytes) -> BodyForm | None:
        """Read more of a body until its form is known, then drop the bytes.  Raises CodingError."""
        self.feed(data)
        while self.form is None and (decoded := self._decoded()):
            self.form = self._sniffer.feed(decoded)
        return self.form

    def _decoded(self) -> bytes:
        if not self._coding_known:
            head = b"".join(self._input)
            if len(head) < _HEAD and not self._finishing:
                self._input = [head] if head else []
                if self._codings or not head or head[0] in (0x1F, 0x28):
                    return b""
            self._settle(head)
        if self._decoder is not None:
            return self._decoder.read()
        data = b"".join(self._input)
        self._input.clear()
        return data

    def _settle(self, head: bytes) -> None:
        self._coding_known = True
        self._decoder = coding.decoder(self._codings, head[:_HEAD])
        if self._decoder is not None:
            self._decoder.feed(head)
            self._input.clear()
            if self._finishing:
                self._decoder.finish()

    def _framed(self, data: bytes) -> bytes:
        if self.form is None:
            self.form = self._sniffer.feed(data)
            self._hold(data)
            if self.form is None or self.form is BodyForm.DOCUMENT:
                return b""
            data = self._take_held()
            if self.form in (BodyForm.LINES, BodyForm.ITEMS):
                self._pieces = Lines() if self.form is BodyForm.LINES else Items()
                data = framing.beginning(data)
        elif self.form is BodyForm.DOCUMENT:
            self._hold(data)
            return b""
        return data if self._pieces is None else self._cut(self._pieces, data)

    def _cut(self, pieces: Lines | Items, data: bytes) -> bytes:
        events = pieces.feed(data)
        if pieces.size > self._most:
            raise TooLargeError(f"has a line or an item of over {self._most} bytes")
        return events

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._size += len(data)
        if self._size > self._most:
            raise TooLargeError(f"is over {self._most} bytes")

    def _take_held(self) -> bytes:
        data = b"".join(self._held)
        self._held.clear()
        return data

    def _rest(self) -> bytes:
        """Return the events that only the end of the body completes."""
        self._over = True
        if self._decoder is not None:
            self._decoder.check()
        if self.form is None:
            self.form = self._sniffer.finish()
        data = self._take_held()
        if self._pieces is not None:
            return self._pieces.close()
        return as_events(data, self.form) if data and self.form not in (BodyForm.OTHER, BodyForm.EVENTS) else data
