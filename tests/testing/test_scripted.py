"""ScriptedUpstream and ManualClock do what they say."""

from __future__ import annotations

import asyncio

import pytest

from headgate.testing import ManualClock, scripted
from tests.testing.raw import ask, request, run

REQUEST = request({"a": 1})
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


async def _pieces() -> None:
    script = [
        ("expect_request",),
        ("send", OK[:20]),
        ("wait", 0.1),
        ("send", OK[20:]),
        ("send", b"hi"),
        ("expect_close",),
    ]
    async with scripted(script) as upstream:
        answer = await ask(upstream.port, REQUEST)
        assert (answer.body, answer.ended) == (b"hi", "complete")
        assert answer.duration_s > 0.09
        await upstream.until(lambda u: u.closed_at)
        assert bytes(upstream.received[0]) == REQUEST
        assert upstream.requests[0].body == b'{"a": 1}' and upstream.requests[0].header("host") == "x"
        assert upstream.failures == []


def test_a_script_is_followed_byte_for_byte() -> None:
    run(_pieces())


async def _endings() -> None:
    first, last = [("expect_request",), ("reset",)], [("expect_request",), ("send", OK), ("send", b"h"), ("close",)]
    async with scripted(first, last) as upstream:
        assert (await ask(upstream.port, REQUEST)).ended == "reset"
        for _ in range(2):  # the last script serves all further connections
            answer = await ask(upstream.port, REQUEST)
            assert (answer.ended, answer.body) == ("eof", b"h")
        assert upstream.url.endswith(f":{upstream.port}/v1")


def test_one_script_per_connection_and_real_endings() -> None:
    run(_endings())


async def _half_close() -> None:
    async with scripted([("send", OK), ("half_close",), ("expect_request",)]) as upstream:
        reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
        assert await reader.read() == OK  # FIN has come, and yet
        writer.write(REQUEST)
        await writer.drain()
        await upstream.until(lambda u: u.requests)
        writer.close()


def test_half_close_leaves_the_other_direction_open() -> None:
    run(_half_close())


async def _failure() -> None:
    async with scripted([("expect_request",)]) as upstream:
        await ask(upstream.port, b"POST / HT", 0.1)
        await upstream.until(lambda u: u.failures)
        assert "expect_request" in upstream.failures[0]


def test_a_step_that_cannot_be_done_is_told() -> None:
    run(_failure())
    with pytest.raises(ValueError, match="at least one script"):
        run(scripted().__aenter__())


def test_the_clock_moves_when_told_and_never_back() -> None:
    clock = ManualClock(5.0)
    assert clock.advance(2.5) == clock.now == 7.5
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)
