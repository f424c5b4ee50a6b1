"""HTTP/1.1 heads ⇄ values, and the few rules of RFC 9110 and 9112 that the gateway itself enforces.

httptools (llhttp) parses.  This module owns the rest: the heads that are refused, the writing of heads, the fields
that go to an upstream.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from msgspec import Struct

from headgate.errors import BAD_FRAMING, HTTP_VERSION, GatewayError
from headgate.wire.redaction import holds

REASONS = {
    100: "Continue", 200: "OK", 204: "No Content", 304: "Not Modified",
    400: "Bad Request", 401: "Unauthorized", 402: "Payment Required",
    403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict", 410: "Gone",
    413: "Content Too Large", 415: "Unsupported Media Type", 422: "Unprocessable Content", 429: "Too Many Requests",
    426: "Upgrade Required", 431: "Request Header Fields Too Large", 500: "Internal Server Error", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}  # fmt: skip
SUCCESSES = range(200, 300)
STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, reason.encode()) for status, reason in REASONS.items()}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

# Fields that a message may have only once.  With a second one, two parsers could read two different messages (RFC
# 9112 §6.3, RFC 9110 §7.2).  Or a client and its proxy could disagree on the caller.
ONCE = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"authorization",
        b"x-api-key",
        b"x-goog-api-key",
        b"content-type",
    )
)

# Fields of a request to an upstream that the transport writes: they frame, route and authenticate it (RFC 9110 §7.6.1).
# The file, the admin API, a provider row and a client may not add a second one.
TRANSPORT_FIELDS = frozenset(
    (
        "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
        "host", "content-length", "content-type", "expect", "authorization", "proxy-authorization", "cookie",
        "x-api-key", "api-key", "x-goog-api-key", "accept", "accept-encoding",
    )
)  # fmt: skip
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Request(Struct, gc=False):
    """One whole request.  Header names are lower-case; repeated fields are joined with ``, ``.

    ``received`` is monotonic seconds when its last byte was read.
    """

    method: bytes
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes
    version: str
    keep_alive: bool
    received: float


# ------------------------------------------------------------------------------- not a request of HTTP/1.1

_REQUEST_LINE = re.compile(rb"(?:\r\n)*([!-~]{1,32}) +[!-~]{1,8192} +HTTP/(\d)\.(\d)\r?\n")


def unsupported(version: str, *, chunked: bool) -> GatewayError | None:
    """Return the error of a request whose version is not 1.1; None for an HTTP/1.0 request that can be read."""
    if version == "1.0":
        # RFC 9112 §6.1: an HTTP/1.0 request with a transfer coding may have been framed by a proxy that ignored it.
        return GatewayError(BAD_FRAMING, "an HTTP/1.0 request has no Transfer-Encoding") if chunked else None
    if version == "0.9":
        return GatewayError(BAD_FRAMING, "the request line has no HTTP version; send HTTP/1.1")
    return GatewayError(HTTP_VERSION, f"HTTP/{version} is not spoken here; send HTTP/1.1")


def unreadable(data: bytes, reason: str) -> GatewayError:
    """Return the error of bytes that the parser refused for ``reason``.

    ``data`` is the read in which it stopped, if a request had to begin there; empty within a body.
    """
    if data[:1] == b"\x16":
        return GatewayError(
            BAD_FRAMING, "this port speaks plain HTTP and the client began with TLS; use http:// in its base URL"
        )
    if data[:14] == b"PRI * HTTP/2.0":
        return GatewayError(BAD_FRAMING, "HTTP/2 is not spoken here; use HTTP/1.1")
    line = _REQUEST_LINE.match(data)
    if line is not None and line[2] not in b"01":
        return GatewayError(
            HTTP_VERSION, f"HTTP/{line[2].decode()}.{line[3].decode()} is not spoken here; send HTTP/1.1"
        )
    if line is not None and line[1] != line[1].upper():
        method = line[1].decode("latin-1")
        return GatewayError(BAD_FRAMING, f"the method {method!r} is not known; methods are upper-case words")
    return GatewayError(BAD_FRAMING, f"the request is not valid HTTP/1.1: {reason}")


def origin_form(target: bytes) -> bytes:
    """Return the path of an absolute-form target (RFC 9112 §3.2.2); other targets as they are."""
    _, found, rest = target.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if found else target


# ------------------------------------------------------------------------------- heads that are written


def chunk(data: bytes) -> bytes:
    """Return one chunk of the chunked coding (RFC 9112 §7.1).  ``data`` must not be empty: that would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def status_line(status: int) -> bytes:
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def fields(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Return header lines.  Raises ValueError if a value could end the line, so that only the gateway writes a head."""
    out = []
    for name, value in pairs:
        if "\r" in value or "\n" in value or "\0" in value:
            raise ValueError(f"a line break in the value of {name}")
        out.append(f"{name}: {value}\r\n")
    return "".join(out).encode("latin-1", "replace")


def unfit_field(name: str) -> str | None:
    """Return the reason why no configuration may name this header field, or None."""
    if not _FIELD_NAME.fullmatch(name):
        return f"{name!r} is not a header name"
    return f"{name!r} cannot be set here: the gateway sets it" if name.lower() in TRANSPORT_FIELDS else None


def forwardable(allowed: Iterable[str], fixed: Iterable[str]) -> tuple[bytes, ...]:
    """Return the names of the client's headers that may go to an upstream.

    They are the provider row's allow-list, without the fields that the transport or the row itself (``fixed``) writes.
    """
    taken = TRANSPORT_FIELDS.union(name.lower() for name in fixed)
    return tuple(name.encode() for name in (name.lower() for name in allowed) if name not in taken)


def forwarded(headers: dict[bytes, bytes], allowed: tuple[bytes, ...]) -> bytes:
    """Return the header lines of ``headers`` that are ``allowed``."""
    out = b""
    for name in allowed:
        if name in headers:
            out += b"%b: %b\r\n" % (name, headers[name])
    return out


def with_family(lines: bytes, headers: dict[bytes, bytes], beginning: bytes, fixed: Mapping[str, str]) -> bytes:
    """Return header ``lines``, and those of ``headers`` whose names begin so: they replace lines of the same name.

    A field that the row sets too (``fixed``) is sent beside it, if it says something else: HTTP joins the two.
    """
    own = {name: value for name, value in headers.items() if beginning and name.startswith(beginning)}
    known = {name.lower().encode(): value.encode("latin-1", "replace") for name, value in fixed.items()}
    given = own.keys() | known.keys()
    out = [line for line in lines.splitlines(keepends=True) if line.partition(b":")[0].lower() not in given]
    out += [b"%b: %b\r\n" % (name, value) for name, value in own.items() if value != known.get(name)]
    return b"".join(out)


def returned(headers: dict[bytes, bytes], beginnings: tuple[bytes, ...], secrets: tuple[str, ...]) -> bytes:
    """Return the header lines of an upstream's answer that a client gets: their names begin so, and they hold none of
    ``secrets``.
    """
    lines = [b"%b: %b\r\n" % field for field in headers.items() if field[0].startswith(beginnings)]
    if holds(b"".join(lines).decode("latin-1"), secrets):  # seldom: they are looked at together first
        lines = [line for line in lines if not holds(line.decode("latin-1"), secrets)]
    return b"".join(lines)


def visible(text: str) -> bytes:
    """A name of the client's choosing as a header value: what is not visible ASCII is replaced."""
    if len(text) <= 256 and text.isascii() and text.isprintable():
        return text.encode()
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:256]).encode()


def sane_label(value: bytes | None) -> str:
    """Return a client's own x-request-id if it can be kept (1 to 128 visible ASCII characters), else ``""``."""
    if not value or len(value) > 128 or not value.isascii():
        return ""
    text = value.decode("ascii")
    return text if text.isprintable() and " " not in text else ""
