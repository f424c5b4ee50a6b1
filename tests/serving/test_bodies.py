"""Answers that are sound but do not look it: other statuses, other media types, compressed, in lines, with a tail."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import brotli
import pytest

from headgate.testing.provider.scripted import Script
from tests.serving.calls import chunk_event, chunked, document, opened, transcript
from tests.serving.test_failed_attempts import FINE, ask, chain, closed, request
from tests.waiting import wait_until

TEXT = "world"
LINES = b"".join(event[6:] + b"\n" for event in FINE.split(b"\n\n")[:-2])
DOCUMENT = document(TEXT)
PRETTY = json.dumps(json.loads(DOCUMENT), indent=1).encode()
ODD_TYPES = (
    b"application/json",
    b"application/json; charset=utf-8",
    b"application/x-ndjson",
    b"text/html; charset=UTF-8",
    b"text/plain",
    b"application/octet-stream",
    b"Text/Event-Stream",
    b"",
)


def response(
    body: bytes, kind: bytes = b"application/json", status: bytes = b"200 OK", *fields: bytes, pieces: int = 1
) -> Script:
    """A chunked answer in ``pieces`` writes, on a connection that closes behind it."""
    head = b"HTTP/1.1 %b\r\nconnection: close\r\ntransfer-encoding: chunked\r\n" % status
    head += b"".join(field + b"\r\n" for field in (b"content-type: " + kind if kind else b"", *fields) if field)
    steps: list[Any] = [("expect_request",), ("send", head + b"\r\n")]
    size = max(1, -(-len(body) // pieces))
    for at in range(0, len(body), size):
        piece = body[at : at + size]
        steps.append(("send", b"%x\r\n%b\r\n" % (len(piece), piece)))
    return [*steps, ("send", b"0\r\n\r\n")]


def check(tmp_path: Path, cases: list[tuple[str, Script]], streams: tuple[bool, ...] = (True, False)) -> None:
    """Every script is played once for each way of asking, and is the answer that it is."""
    scripts = [script for _, script in cases for _ in streams]
    with chain(tmp_path / "s", scripts) as (plane, _):
        for name, _ in cases:
            for stream in streams:
                answer = ask(plane, stream)
                assert answer.status == 200, (name, stream, answer.raw)
                if stream:
                    answer.check_stream(TEXT)
                else:
                    assert answer.json["choices"][0]["message"]["content"] == TEXT, (name, answer.raw)
                    assert answer.json["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("status", [b"201 Created", b"202 Accepted", b"203 Non-Authoritative", b"206 Partial Content"])
def test_any_status_of_success_with_a_sound_body_is_an_answer(tmp_path: Path, status: bytes) -> None:
    sound = [("events", response(FINE, b"text/event-stream", status)), ("json", response(DOCUMENT, status=status))]
    check(tmp_path, sound)


@pytest.mark.parametrize(
    ("status", "body"),
    [(b"202 Accepted", b'{"status":"queued"}'), (b"204 No Content", b""), (b"206 Partial", DOCUMENT[:-20])],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_status_of_success_does_not_make_an_answer(tmp_path: Path, status: bytes, body: bytes, stream: bool) -> None:
    refusal = (
        response(body, status=status) if body else [("expect_request",), ("send", b"HTTP/1.1 %b\r\n\r\n" % status)]
    )
    with chain(tmp_path / "s", [refusal] * 3) as (plane, _):
        answer = ask(plane, stream)
    assert answer.status == 502 and answer.error["code"] in ("upstream_invalid_response", "upstream_cut")


@pytest.mark.parametrize("kind", ODD_TYPES)
def test_bytes_decide_what_a_body_is_and_not_its_type(tmp_path: Path, kind: bytes) -> None:
    bodies = {
        "events": FINE,
        "events behind blanks": b"\n\n" + FINE,
        "events behind a mark and comments": b"\xef\xbb\xbf: waiting\n\n: waiting\n\n" + FINE,
        "named events": FINE.replace(b"data: ", b"event: message\ndata: "),
        "numbered events": FINE.replace(b"data: ", b"id: 7\nretry: 10\ndata:"),
        "events with CRLF": FINE.replace(b"\n", b"\r\n"),
        "lines": LINES,
        "lines and [DONE]": LINES + b"[DONE]\n",
        "lines behind blanks": b"\r\n\r\n" + LINES.replace(b"\n", b"\r\n\r\n"),
        "indented events": FINE.replace(b"data: ", b" \tdata: "),
        "array of chunks": b"[" + LINES.strip().replace(b"\n", b",") + b"]",
        "array of many lines": b"[\n" + LINES.strip().replace(b"\n", b"\n,\r\n").replace(b'","', b'",\n"') + b"\n]\n",
        "array of one document": b"[" + PRETTY + b"]",
        "document": DOCUMENT,
        "document behind blanks": b" \n\n\n " + DOCUMENT,
        "document behind comments": b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n" + DOCUMENT,
        "document of many lines": PRETTY + b"\n",
        "document and [DONE]": DOCUMENT + b"\n\ndata: [DONE]\n\n",
        "document of many lines and [DONE]": PRETTY + b"\ndata: [DONE]",
    }
    check(tmp_path, [(name, response(body, kind, pieces=3)) for name, body in bodies.items()])


def raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    return engine.compress(data) + engine.flush()


def zstandard(data: bytes) -> bytes:
    zstd = pytest.importorskip("backports.zstd" if __import__("sys").version_info < (3, 14) else "compression.zstd")
    packed: bytes = zstd.compress(data)
    return packed


CODINGS = {
    "gzip": (b"gzip", gzip.compress),
    "x-gzip": (b"X-GZIP", gzip.compress),
    "deflate": (b"deflate", zlib.compress),
    "raw deflate": (b"deflate", raw_deflate),
    "br": (b"br", brotli.compress),
    "zstd": (b"zstd", zstandard),
    "deflate, gzip": (b"deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
    "gzip twice, once named": (b"gzip, gzip", gzip.compress),
    "gzip unnamed": (b"identity", gzip.compress),
    "named and not compressed": (b"gzip", bytes),
    "empty": (b"", bytes),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_what_is_compressed_although_identity_was_asked(tmp_path: Path, coding: str) -> None:
    name, compress = CODINGS[coding]
    field = b"Content-Encoding: " + name
    bodies = ((FINE, b"text/event-stream"), (FINE, b"application/json"), (LINES, b"text/plain"), (DOCUMENT, b""))
    cases = []
    for (body, kind), pieces in product(bodies, (1, 40, 1000)):
        cases.append((f"{kind!r} in {pieces}", response(compress(body), kind, b"200 OK", field, pieces=pieces)))
    check(tmp_path, cases)


def test_an_error_that_is_compressed_is_read(tmp_path: Path) -> None:
    said = json.dumps({"error": {"message": "temperature must be below 2", "param": "temperature"}}).encode()
    scripts = [
        response(compress(said), b"application/json", b"400 Bad Request", b"content-encoding: " + name)
        for name, compress in CODINGS.values()
    ]
    with chain(tmp_path / "s", scripts) as (plane, _):
        for _ in scripts:
            answer = ask(plane)
            assert (answer.status, answer.error["message"]) == (400, "temperature must be below 2")


@pytest.mark.parametrize(
    "rubbish",
    [b"\x1f\x8b\x08\x00rubbish that is no gzip", gzip.compress(b"x" * 2000)[:-12]],
    ids=["no gzip", "cut"],
)
def test_an_error_that_cannot_be_decoded_keeps_its_status(tmp_path: Path, rubbish: bytes) -> None:
    scripts = [response(rubbish, b"application/json", b"400 Bad Request", b"content-encoding: gzip")]
    with chain(tmp_path / "s", scripts) as (plane, _):
        answer = ask(plane)
    assert answer.status == 400 and answer.error["message"].isascii()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (gzip.compress(DOCUMENT)[:-9], "upstream_cut"),
        (gzip.compress(DOCUMENT)[:40] + b"\xff" * 40, "upstream_invalid_response"),
        (gzip.compress(b"<html>" * 50), "upstream_invalid_response"),
    ],
    ids=["cut", "damaged", "no JSON"],
)
def test_a_compressed_answer_that_is_broken_fails_truthfully(
    tmp_path: Path, stream: bool, body: bytes, code: str
) -> None:
    scripts = [response(body, b"application/json", b"200 OK", b"content-encoding: gzip")] * 3
    with chain(tmp_path / "s", scripts) as (plane, _):
        answer = ask(plane, stream)
    assert answer.status == 502 and answer.error["code"] == code and answer.error["message"].isascii()


def test_a_compressed_stream_that_breaks_after_text_is_cut(tmp_path: Path) -> None:
    engine = zlib.compressobj(9, zlib.DEFLATED, 31)
    said = chunk_event({"role": "assistant", "content": "Hello "})
    sound = engine.compress(said) + engine.flush(zlib.Z_SYNC_FLUSH)
    for behind, code in ((b"", "upstream_cut"), (b"\xff\xfe\xfd" * 20, "upstream_invalid_response")):
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n"
        begun = head + b"transfer-encoding: chunked\r\n\r\n" + chunked(sound)
        script: Script = [("expect_request",), ("send", begun), ("wait", 0.2)]
        script.append(("send", (chunked(behind) if behind else b"") + b"0\r\n\r\n"))
        with chain(tmp_path / code, [script], on_midstream_failure="error") as (plane, _):
            answer = ask(plane)
        answer.check_truncated(code)


def flushed(events: list[bytes]) -> Iterator[bytes]:
    engine = zlib.compressobj(9, zlib.DEFLATED, 31)
    for event in events:
        yield engine.compress(event) + engine.flush(zlib.Z_SYNC_FLUSH)


def test_compressed_events_leave_at_once(tmp_path: Path) -> None:
    """The upstream sends the next event only when the client has the one before."""
    words = [f"word{number} " for number in range(5)]
    events = [chunk_event({"content": word}) for word in words]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n\r\n"
    steps: list[Any] = [("expect_request",), ("send", head)]
    for piece in flushed(events):
        steps += [("send", piece), ("wait", 0.2)]
    with (
        chain(tmp_path / "s", [[*steps, ("reset",)]], on_midstream_failure="error") as (plane, _),
        opened(plane, request()) as stream,
    ):
        stream.head()
        for word, following in pairwise(words):
            stream.until(word.encode())
            assert following.encode() not in stream.buffer


@pytest.mark.parametrize("compress", [gzip.compress, brotli.compress])
def test_an_answer_that_expands_beyond_measure_is_refused(tmp_path: Path, compress: Any) -> None:
    """Streamed: what a few bytes expand to waits for a client that does not read, and is not held."""
    name = b"gzip" if compress is gzip.compress else b"br"
    bomb = compress(b" " * 60_000_000)
    scripts = [response(bomb, b"application/json", b"200 OK", b"content-encoding: " + name)] * 2
    with chain(tmp_path / "whole", scripts) as (plane, _):
        answer = ask(plane, stream=False)
        assert answer.status == 502 and answer.error["code"] == "upstream_answer_too_large"
    events = (
        FINE[: FINE.index(b"data: [DONE]")].replace(b'"stop"', b"null") + chunk_event({"content": "x" * 1000}) * 60_000
    )
    script = response(compress(events), b"text/event-stream", b"200 OK", b"content-encoding: " + name)
    with chain(tmp_path / "events", [script]) as (plane, _):
        with opened(plane, request(), timeout=30) as stream:
            stream.head()
            before = plane.rss_kb()
            for _ in range(20):  # it could have been expanded many times over by now
                ask_health(plane)
            assert plane.rss_kb() - before < 40_000
            stream.leave()
        wait_until(lambda: closed(plane).outcome == "cancelled")


def ask_health(plane: Any) -> None:
    with opened(plane, b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n") as stream:
        stream.rest()


def test_a_slow_client_of_a_compressed_stream_gets_all_of_it(tmp_path: Path) -> None:
    texts = [f"{number:07} " for number in range(20_000)]
    script = response(gzip.compress(transcript(*texts)), b"", b"200 OK", b"content-encoding: gzip", pieces=7)
    with chain(tmp_path / "s", [script]) as (plane, _), opened(plane, request(), timeout=30) as stream:
        stream.buffer += stream.sock.recv(10_000)
        stream.rest().check_stream("".join(texts))
