"""Requests as bytes, without a socket: what is kept of them, what is refused, what a hostile one costs."""

from __future__ import annotations

import pytest

from headgate.model import Limits
from headgate.serving.client.arrival import COUNTED_FROM, Arrival, Bodies
from headgate.testing.opcodes import opcodes
from headgate.wire.http import Request

LIMITS = Limits(max_head=4096, max_body=1 << 20, max_header_fields=20)
CHUNKED = b"POST /v1/x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n%b\r\n"
READ = 1000


class Reader(Arrival):
    """Keeps what was read."""

    def __init__(self, limits: Limits = LIMITS, most: int = 1 << 30) -> None:
        super().__init__(limits, Bodies(most))
        self.requests: list[Request] = []

    def request_read(self, request: Request) -> None:
        self.requests.append(request)

    def read(self, data: bytes, size: int = READ) -> int:
        """Feeds ``data`` in reads of ``size`` bytes until it is refused; how many bytes were taken."""
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            if self._reading_body:
                self._feed_body(piece)
            else:
                self._head_size += len(piece)
                self._feed(piece)
            if self._error is not None:
                return at + len(piece)
        return len(data)

    @property
    def status(self) -> int:
        return self._error.kind.status if self._error is not None else 0


SIZES = pytest.mark.parametrize("size", [1, 7, 1000, 65536])


@SIZES
@pytest.mark.parametrize("declared", [b"", b"Trailer: authorization, x-a\r\n"], ids=["undeclared", "declared"])
@pytest.mark.parametrize("body", [b"0\r\n", b"2\r\n{}\r\n0\r\n", b"2;ext=1\r\n{}\r\n000;last\r\n"])
def test_trailers_are_read_and_become_no_headers(size: int, declared: bytes, body: bytes) -> None:
    trailers = b"Authorization: Bearer x\r\nHost: other\r\nHost: third\r\nX-A: 1\r\nX-A: 2\r\nExpect: 100-continue\r\n"
    reader = Reader()
    reader.read(CHUNKED % declared + body + trailers + b"\r\n", size)
    (request,) = reader.requests
    assert reader.status == 0 and request.body in (b"", b"{}")
    assert set(request.headers) - {b"trailer"} == {b"host", b"transfer-encoding"}
    assert request.headers[b"host"] == b"t"


@SIZES
@pytest.mark.parametrize(
    "trailer", [b"Content-Length: 5", b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"X: a\r\n b", b"X : a", b"X"]
)
def test_framing_trailers_are_refused_or_ignored(size: int, trailer: bytes) -> None:
    reader = Reader()
    hidden = b"POST /hidden HTTP/1.1\r\nHost: t\r\n\r\n"
    reader.read(CHUNKED % b"" + b"0\r\n" + trailer + b"\r\n\r\n" + hidden, size)
    if reader.status:
        assert reader.status == 400 and len(reader.requests) <= 1
    else:
        assert [request.path for request in reader.requests] == [b"/v1/x", b"/hidden"]
    assert all(b"content-length" not in request.headers for request in reader.requests)


ENDLESS = {
    "one value": b"0\r\nX: " + b"a" * 200_000,
    "one name": b"0\r\n" + b"a" * 200_000,
    "many fields": b"0\r\n" + b"x-a: 1\r\n" * 20_000,
    "many empty fields": b"0\r\n" + b"x:\r\n" * 40_000,
    "after a body": b"5\r\nhello\r\n0\r\nX: " + b"a" * 200_000,
    "a chunk's extension": b"5;x=" + b"a" * 200_000,
    "the last chunk's extension": b"0;x=" + b"a" * 200_000,
    "leading zeros": b"0" * 200_000,
    "a quoted extension": b'5;x="' + b"a" * 200_000,
}


@pytest.mark.parametrize("what", ENDLESS)
@pytest.mark.parametrize("size", [1, READ])
def test_bytes_after_the_head_are_bounded(what: str, size: int) -> None:
    reader = Reader()
    head = CHUNKED % b""
    taken = reader.read(head + ENDLESS[what], size)
    assert reader.status in (400, 431) and not reader.requests
    assert taken <= len(head) + LIMITS.max_head + 3 * READ


@pytest.mark.parametrize("digits", [b"fffffffffffffffff", b"123456789abcdef01", b"-1", b"+5", b" 5", b"0x5", b"5_0"])
def test_a_chunk_size_that_is_none_is_400(digits: bytes) -> None:
    reader = Reader()
    reader.read(CHUNKED % b"" + digits + b"\r\nhello\r\n0\r\n\r\n")
    assert reader.status in (400, 413) and not reader.requests


def test_a_trailer_that_came_in_one_read_is_weighed() -> None:
    reader = Reader()
    reader.read(CHUNKED % b"" + b"0\r\nX: " + b"a" * 5000 + b"\r\n\r\n", 1 << 20)
    assert reader.status == 431
    within = Reader()
    within.read(CHUNKED % b"" + b"0\r\nX: " + b"a" * 3000 + b"\r\n\r\n", 1 << 20)
    assert within.status == 0 and len(within.requests) == 1


@pytest.mark.parametrize("chunk", [1, 10, 1000])
def test_a_body_in_small_chunks_with_small_extensions_is_read(chunk: int) -> None:
    reader = Reader()
    pieces = b"".join(b"%x;sig=0123\r\n%b\r\n" % (chunk, b"x" * chunk) for _ in range(5000 // chunk))
    reader.read(CHUNKED % b"" + pieces + b"0\r\n\r\n", 100)
    assert reader.status == 0 and reader.requests[0].body == b"x" * (5000 // chunk * chunk)


def test_one_byte_chunks_cost_no_python_for_each() -> None:
    def cost(chunks: int) -> int:
        data = CHUNKED % b"" + b"1\r\nx\r\n" * chunks + b"0\r\n\r\n"
        return opcodes(lambda: Reader().read(data, 1 << 20))

    assert cost(10_000) == cost(1_000)


def test_bodies_of_all_connections_are_bounded_together() -> None:
    bodies = Bodies(100_000)
    readers = [Reader() for _ in range(4)]
    for reader in readers:
        reader._bodies = bodies
        reader.read(b"POST /v1/x HTTP/1.1\r\nHost: t\r\nContent-Length: 40000\r\n\r\n" + b"x" * 40_000, 1 << 20)
    assert [len(reader.requests) for reader in readers] == [1, 1, 0, 0]
    assert [reader.status for reader in readers] == [0, 0, 503, 503]
    assert readers[2]._error is not None and readers[2]._error.retry_after == 1
    assert bodies.held == 80_000
    bodies.release(40_000)
    small = Reader()
    small._bodies = bodies
    small.read(b"POST /v1/x HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{}")
    assert small.requests and bodies.held == 40_000 and COUNTED_FROM > 2


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /", 400),
        (b"GET / HTTP/0.9", 400),
        (b"POST /v1/chat/completions", 400),
        (b"GET / HTTP/2.0", 505),
        (b"POST / HTTP/2.0", 505),
        (b"GET / HTTP/3.7", 505),
        (b"GET / HTTP/9.9", 505),
        (b"GET / HTTP/1.2", 400),
        (b"GET / HTTP/1", 400),
        (b"GET / HTTP/", 400),
        (b"GET / HTP/1.1", 400),
        (b"GET / http/1.1", 400),
        (b"get / HTTP/1.1", 400),
        (b"Post / HTTP/1.1", 400),
        (b"FROB / HTTP/1.1", 400),
        (b"GET", 400),
        (b"GET / HTTP/1.1 x", 400),
        (b"PRI * HTTP/2.0", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"hello", 400),
    ],
)
@pytest.mark.parametrize("host", [b"", b"Host: t\r\n"], ids=["no host", "host"])
def test_other_protocols_are_refused_in_words(line: bytes, status: int, host: bytes) -> None:
    reader = Reader()
    reader.read(line + b"\r\n" + host + b"\r\n" + (b"SM\r\n\r\n" if line[:3] == b"PRI" else b""))
    assert reader.status == status and not reader.requests
    assert reader._error is not None and reader._error.message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x16\x03\x01\x02\x00\x01", "http://"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2"),
        (b"GET / HTTP/2.0\r\nHost: t\r\n\r\n", "HTTP/2.0"),
        (b"GET / HTTP/3.0\r\nHost: t\r\n\r\n", "HTTP/3.0"),
        (b"GET /\r\n\r\n", "no HTTP version"),
        (b"get / HTTP/1.1\r\nHost: t\r\n\r\n", "upper-case"),
    ],
)
def test_the_error_names_what_was_spoken(data: bytes, words: str) -> None:
    reader = Reader()
    reader.read(data)
    assert reader._error is not None and words in reader._error.message


@pytest.mark.parametrize("target", [b"/v1/x", b"http://gate.example/v1/x", b"HTTP://GATE.example:80/v1/x"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_origin_and_absolute_form_of_both_versions_are_read(target: bytes, version: bytes) -> None:
    reader = Reader()
    reader.read(b"POST %b HTTP/%b\r\nHost: t\r\nContent-Length: 2\r\n\r\n{}" % (target, version))
    (request,) = reader.requests
    assert (request.path, request.body, request.version) == (b"/v1/x", b"{}", version.decode())


def test_http_1_0_needs_no_host_and_may_not_be_chunked() -> None:
    reader = Reader()
    reader.read(b"GET /livez HTTP/1.0\r\n\r\n")
    assert reader.requests[0].version == "1.0" and not reader.requests[0].keep_alive
    chunked = Reader()
    chunked.read(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert chunked.status == 400 and not chunked.requests
