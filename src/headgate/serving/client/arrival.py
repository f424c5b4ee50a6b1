"""Requests as they arrive on one client connection: bytes in, whole Requests out.

Owns the parts of a request that have arrived, and the limits of its head, body and trailers.  Bytes that cannot be
read as exactly one request are an error, and the connection is closed after it (RFC 9112 §6.3).  Requests are
smuggled through a second reading of the same bytes.
"""

from __future__ import annotations

import time

import httptools

from headgate.errors import BAD_FRAMING, HEAD_TOO_LARGE, OVERLOADED, PAYLOAD_TOO_LARGE, GatewayError
from headgate.model import Limits
from headgate.wire.http import ONCE, Request, origin_form, unreadable, unsupported

_monotonic = time.monotonic
COUNTED_FROM = 16 << 10  # bytes: larger bodies count against the common limit of all connections


class Bodies:
    """The bytes of request bodies that this process holds, and their limit: of arriving requests and running calls.

    Bodies up to 16 KiB are not counted: each connection may hold one without the work of counting it.
    """

    def __init__(self, most: int) -> None:
        self.held = 0
        self._most = most

    def hold(self, size: int) -> bool:
        """Count ``size`` more bytes.  False, and nothing is counted, if they do not fit."""
        if self.held + size > self._most:
            return False
        self.held += size
        return True

    def release(self, size: int) -> None:
        self.held -= size


class Arrival:
    """One connection's reading side.  A subclass gives ``request_read`` and answers ``_error``."""

    __slots__ = (
        "_bare", "_bodies", "_body", "_body_counted", "_error", "_head_size", "_headers", "_limits", "_owes_continue",
        "_parser", "_reading_body", "_repeats", "_url", "_version", "on_body",
    )  # fmt: skip

    def __init__(self, limits: Limits, bodies: Bodies) -> None:
        self._limits = limits
        self._bodies = bodies
        self._body = bytearray()
        self._body_counted = 0  # bytes of _body that are counted in _bodies
        self.on_body = self._body.extend  # httptools calls it for each piece: no Python frame
        self._parser = httptools.HttpRequestParser(self)
        self._error: GatewayError | None = None
        self._owes_continue = False
        self._version = ""
        self._fresh()

    def request_read(self, request: Request) -> None:
        """A request is complete."""
        raise NotImplementedError

    def _fresh(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._repeats = 0
        self._head_size = 0
        self._bare = 0  # bytes since the last piece of the body: trailers, or what surrounds chunks
        self._body.clear()
        self._reading_body = False

    # --------------------------------------------------------------- one read

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._error is None and self._reading_body:
                self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if self._error is None:
                self._error = unreadable(b"" if self._reading_body else data, str(error))
        else:
            if len(self._body) > self._limits.max_body and self._error is None:
                self._error = self._body_too_large()
                self._body.clear()
            if not self._reading_body and self._head_size > self._limits.max_head and self._error is None and self._url:
                # Only a head that is still incomplete counts the bytes of this read: a complete one has been weighed.
                self._error = self._head_too_large()

    def _feed_body(self, data: bytes) -> None:
        """Take a read that begins inside a body.  A read without body bytes is a trailer, a chunk's extension, or the
        digits of its size.

        httptools joins the parts of a trailer's value by copying all of it, so their sum must stay small.
        """
        headers, size, bare = self._headers, len(self._body), self._bare
        self._feed(data)
        if self._headers is not headers:  # the message is complete
            return
        if len(self._body) > size:
            self._bare = 0
        else:
            self._bare = bare + len(data)
            self._check_bare()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read the request as if no upgrade had been offered (RFC 9110 §7.8); java.net.http offers h2c with every
        request.

        llhttp takes the bytes after such a head, body included, for the other protocol.  So it gets a head without
        the offer.
        """
        head = b"%b %b HTTP/1.1\r\n" % (self._parser.get_method(), self._url)
        if not self._parser.should_keep_alive():
            head += b"connection: close\r\n"
        for name, value in self._headers.items():
            if name not in (b"upgrade", b"connection"):
                head += b"%b: %b\r\n" % (name, value)
        self._fresh()
        self._parser = httptools.HttpRequestParser(self)
        self._head_size = len(head)
        self._feed(head + b"\r\n" + rest)

    # --------------------------------------------------------------- called by the parser

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading_body:  # trailers are ignored (RFC 9110 §6.5.1)
            self._bare += len(name) + len(value) + 4
            self._check_bare()
            return
        name = name.lower()
        if name in self._headers:
            self._repeated(name, value)
        else:
            self._headers[name] = value

    def _repeated(self, name: bytes, value: bytes) -> None:
        self._repeats += 1
        if name in ONCE:
            self._error = GatewayError(BAD_FRAMING, f"the header {name.decode('latin-1')} appears twice")
        elif self._repeats <= self._limits.max_header_fields:  # joining again and again is quadratic
            self._headers[name] += b", " + value

    def on_headers_complete(self) -> None:
        if self._error is not None:
            return
        limits = self._limits
        headers = self._headers
        self._reading_body = True
        if len(headers) + self._repeats > limits.max_header_fields:
            self._error = GatewayError(HEAD_TOO_LARGE, f"more than {limits.max_header_fields} header fields")
            return
        if self._head_size > limits.max_head:
            weight = len(self._url) + sum(len(name) + len(value) + 4 for name, value in headers.items())
            if weight > limits.max_head:
                self._error = self._head_too_large()
                return
        coding = headers.get(b"transfer-encoding")
        version = self._version = self._parser.get_http_version()
        if version != "1.1":
            self._error = unsupported(version, chunked=coding is not None)
            if self._error is not None:
                return
        elif b"host" not in headers:
            self._error = GatewayError(BAD_FRAMING, "an HTTP/1.1 request needs a Host header (RFC 9112 §3.2)")
            return
        if coding is not None and coding.lower() != b"chunked":
            self._error = GatewayError(BAD_FRAMING, "only Transfer-Encoding: chunked is understood")
            return
        length = headers.get(b"content-length")
        if length is not None and int(length) > limits.max_body:
            self._error = self._body_too_large()
        elif b"expect" in headers and version == "1.1" and headers[b"expect"].lower() == b"100-continue":
            self._owes_continue = True

    def on_message_complete(self) -> None:
        parser = self._parser
        if self._error is not None or (
            b"upgrade" in self._headers and parser.should_upgrade() and parser.get_method() != b"CONNECT"
        ):
            return
        size = len(self._body)
        if size > COUNTED_FROM:
            if size > self._limits.max_body:
                self._error = self._body_too_large()
            else:
                self._count_body()
            if self._error is not None:
                return
            self._body_counted = 0  # released with the request
        request = self._request(bytes(self._body))
        self._owes_continue = False
        self._fresh()
        self.request_read(request)

    # --------------------------------------------------------------- the complete request

    def _request(self, body: bytes) -> Request:
        path, _, query = self._url.partition(b"?")
        if path[:1] != b"/":
            path = origin_form(path)
        parser = self._parser
        return Request(
            parser.get_method(), path, query, self._headers, body, self._version, parser.should_keep_alive(),
            _monotonic(),
        )  # fmt: skip

    def _count_body(self) -> None:
        """Count the body so far.  Set the error 503 if all bodies together are too large."""
        more = len(self._body) - self._body_counted
        if self._bodies.hold(more):
            self._body_counted += more
        elif self._error is None:
            self._error = GatewayError(
                OVERLOADED, "the running requests hold all the memory for bodies; try again shortly",
                retry_after=1,
            )  # fmt: skip

    def _drop_body(self) -> None:
        """Keep nothing of the request that is arriving."""
        self._body.clear()
        self._bodies.release(self._body_counted)
        self._body_counted = 0

    def _check_bare(self) -> None:
        if self._bare > self._limits.max_head and self._error is None:
            self._error = GatewayError(
                HEAD_TOO_LARGE, f"trailers or chunk extensions are over {self._limits.max_head} bytes"
            )

    def _head_too_large(self) -> GatewayError:
        return GatewayError(HEAD_TOO_LARGE, f"the request head is over {self._limits.max_head} bytes")

    def _body_too_large(self) -> GatewayError:
        return GatewayError(PAYLOAD_TOO_LARGE, f"the body is over {self._limits.max_body} bytes")
