"""The reading side of an upstream connection: the framing of one answer after the other, and bodies that come whole.

Owns what has been read of an answer: its head, the pieces of its body, and whether it is complete.  Bounds what is no
body (heads, trailers, chunk extensions) and what a whole body may hold.  Knows neither pools nor deadlines.
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
    """What one connection has read.  The owner feeds ``_parser`` and looks at the rest after each read."""

    # Of one answer:
    status = 0
    body = b""
    streamed = False
    _head_complete = _complete = _keep_alive = False
    _size = 0  # of the heads, interim ones too; then of what came since the last piece of the body

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
        if not self._head_complete:  # trailers come here too, and must not change what the head has said
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
        """Return what the last read brought of the body, where that is not one piece."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data

    def _collect(self, max_answer: int) -> bool:
        """Take what the last read brought of a whole answer.  True when all of it is in ``body``.

        Each read costs what it brought, however many reads and chunks there are.  Raises GatewayError for an answer
        that is too large, or of success and not readable.
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
