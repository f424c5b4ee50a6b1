"""The reading side of an upstream connection: the framing of one answer after the other, and bodies that come whole.

Owns the parts of an answer that have been read: its head, the pieces of its body, and whether it is complete.  Bounds
heads, trailers, chunk extensions, and the size of a whole body.  Knows neither pools nor deadlines.
"""

from __future__ import annotations

import httptools

from headgate.errors import UPSTREAM_TOO_LARGE, GatewayError
from headgate.serving.upstream.decoding import error_of
from headgate.wire.bodies.coding import CodingError, decode
from headgate.wire.http import SUCCESSES

MAX_HEAD = 64 << 10
MAX_ERROR_BODY = 256 << 10


class AnswerReader:
    """The input of one connection.  The owner feeds ``_parser``, and checks the other attributes after each read."""

    # Of one answer:
    status = 0
    body = b""
    streamed = False
    _head_complete = _complete = _keep_alive = False
    _size = 0  # bytes of the heads, interim ones too; then bytes since the last piece of the body

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._gathered = bytearray()  # of a whole answer: the bytes of earlier reads
        self.on_body = self._pieces.append  # httptools calls it for each piece: no Python frame
        self._parser = httptools.HttpResponseParser(self)
        self.headers: dict[bytes, bytes] = {}

    # --------------------------------------------------------------- called by the parser

    def on_message_begin(self) -> None:
        if self._complete:  # a second answer to one request: llhttp stops here, and the first answer stands
            raise httptools.HttpParserError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_complete:  # trailers come here too, and must not change the head
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200:  # an interim answer is no answer (RFC 9110 §15.2); httptools ends a message for it
            self.headers = {}
            return
        self.status = status
        self._head_complete = True
        self._size = 0

    def on_message_complete(self) -> None:
        self._complete = self._head_complete
        self._keep_alive = self._parser.should_keep_alive()  # llhttp forgets it with the message

    # --------------------------------------------------------------- what has come

    def _joined(self) -> bytes:
        """Return the body's bytes of the last read, joined from several pieces."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data

    def _collect(self, max_answer: int) -> bool:
        """Take the last read's part of a whole answer.  Return true when all of it is in ``body``.

        The cost of a read depends on its own size only, not on the number of reads and chunks.  Raises GatewayError for
        an answer that is too large, and for one of a success status that cannot be read.
        """
        pieces = self._pieces
        data = pieces.pop() if len(pieces) == 1 else self._joined()
        if not self._complete or self._gathered or len(data) > max_answer:
            self._size = 0
            gathered = self._gathered
            gathered += data
            limit = self._limit(max_answer)
            if len(gathered) > limit:
                gathered.clear()
                raise GatewayError(UPSTREAM_TOO_LARGE, f"the provider's answer is over {limit} bytes")
            if not self._complete:
                return False
            data = bytes(gathered)
            gathered.clear()
        self.body = data
        if data[:1] != b"{":
            self._decode(self._limit(max_answer))
        return True

    def _limit(self, max_answer: int) -> int:
        return max_answer if self.status in SUCCESSES else MAX_ERROR_BODY

    def _decode(self, limit: int) -> None:
        """Decode a whole body.  If that fails, a refusal is classified by its status alone."""
        try:
            self.body = decode(self.headers.get(b"content-encoding", b""), self.body, limit)
        except CodingError as error:
            self.body = b""
            if self.status in SUCCESSES:
                raise error_of(error) from error

    def _ends_with_connection(self) -> bool:
        # RFC 9112 §6.3: neither a length nor chunks means that the body runs until the connection closes.
        coding = self.headers.get(b"transfer-encoding", b"").lower().rstrip()
        return not coding.endswith(b"chunked") if coding else b"content-length" not in self.headers
