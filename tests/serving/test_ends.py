"""Bodies that end with their connection: no length, no chunks, as HTTP/1.0 servers and simple proxies send them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from headgate.dialects.openai_chat.stream.delivery import QUIET_S
from headgate.model import Timeouts
from tests.serving.calls import STREAM_HEAD, Script, chunked, document, last_closed
from tests.serving.test_failed_attempts import DONE, FINE, HELLO, ROLE, STOP, USAGE, WORLD, ask, chain, closed

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\nconnection: close\r\n\r\n"
OLD = b"HTTP/1.0 200 OK\r\ncontent-type: %b\r\n\r\n"
STREAM, JSON = b"text/event-stream", b"application/json"


def closing(data: bytes, head: bytes = HEAD, kind: bytes = STREAM) -> Script:
    return [("expect_request",), ("send", head % kind), ("wait", 0.02), ("send", data), ("wait", 0.05), ("close",)]


@pytest.mark.parametrize("head", [HEAD, OLD])
@pytest.mark.parametrize("end", [STOP, STOP + DONE, b""], ids=["a finish", "[DONE]", "neither"])
def test_a_stream_that_ends_with_its_connection_ends(tmp_path: Path, head: bytes, end: bytes) -> None:
    said = ROLE + HELLO + (WORLD + end if end else b"")
    with chain(tmp_path / "s", [closing(said, head)], [closing(FINE, head)]) as (plane, (_, second)):
        answer = ask(plane)
        answer.check_stream("Hello world")
        assert len(second.requests) == (0 if end else 1)  # where it was cut, the other one goes on
        assert closed(plane).outcome == "delivered"


@pytest.mark.parametrize("said", [b"", ROLE], ids=["nothing", "a role"])
def test_silent_end_of_connection_fails_over(tmp_path: Path, said: bytes) -> None:
    with chain(tmp_path / "s", [closing(said)], [closing(FINE)]) as (plane, (first, second)):
        ask(plane).check_stream("world")
        assert first.requests and len(second.requests) == 1
        assert last_closed(plane).outcome == "delivered"


def test_a_whole_answer_that_ends_with_its_connection(tmp_path: Path) -> None:
    with chain(tmp_path / "s", [closing(document("hi"), OLD, JSON)]) as (plane, _):
        assert ask(plane, stream=False).json["choices"][0]["message"]["content"] == "hi"
        assert ask(plane).text == "hi"  # and where a stream was asked for


def open_still(*data: bytes) -> Script:
    """Everything in order, but then nobody closes anything."""
    steps: list[Any] = [("expect_request",), ("send", STREAM_HEAD + chunked(data[0]))]
    for one in data[1:]:
        steps += [("wait", 0.5), ("send", chunked(one))]
    return [*steps, ("expect_close",)]


def test_an_upstream_that_forgets_to_end_is_not_waited_for(tmp_path: Path) -> None:
    with chain(tmp_path / "s", [open_still(ROLE + HELLO + STOP)]) as (plane, _):
        began = time.monotonic()
        ask(plane).check_stream("Hello ")
        assert 1.5 < time.monotonic() - began < Timeouts().stall
        receipt = closed(plane)
        assert (receipt.outcome, receipt.basis) == ("delivered", "estimated")


def test_late_usage_is_awaited_and_ends_the_stream(tmp_path: Path) -> None:
    with chain(tmp_path / "s", [open_still(ROLE + HELLO + STOP, USAGE)]) as (plane, _):
        began = time.monotonic()
        ask(plane).check_stream("Hello ")
        assert time.monotonic() - began < QUIET_S
        receipt = closed(plane)
        assert (receipt.basis, receipt.prompt_tokens) == ("provider", 7)


@pytest.mark.parametrize(
    ("kind", "data"),
    [(b"Text/Event-Stream", FINE), (b"text/plain", FINE), (b"Application/JSON", document("world"))],
)
@pytest.mark.parametrize("stream", [True, False])
def test_media_types_are_compared_without_case(tmp_path: Path, kind: bytes, data: bytes, stream: bool) -> None:
    with chain(tmp_path / "s", [closing(data, HEAD, kind)]) as (plane, _):
        answer = ask(plane, stream)
        assert answer.status == 200
        assert (answer.text if stream else answer.json["choices"][0]["message"]["content"]) == "world"


def test_unchunked_body_ends_with_its_connection(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: identity\r\n\r\n"
    with chain(tmp_path / "s", [closing(document("hi"), head, JSON)]) as (plane, _):
        assert ask(plane, stream=False).json["choices"][0]["message"]["content"] == "hi"
