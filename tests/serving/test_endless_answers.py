"""Answers that never end, or come in the smallest pieces: bounded in bytes, and no work that grows with what came."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headgate.dialects.base import Reply
from headgate.dialects.openai_chat import answer_in_parts
from headgate.model import Timeouts
from headgate.serving.call.answering import summed_up
from headgate.serving.loop.fiber import Fiber
from headgate.serving.upstream.answer import MAX_HEAD
from headgate.serving.upstream.asking import HttpAsking
from headgate.serving.upstream.connection import HttpUpstream
from headgate.serving.upstream.transport import Pool
from headgate.testing import Script
from headgate.testing.opcodes import opcodes
from tests.dataplane import DataPlane, upstream
from tests.serving.calls import STREAM_HEAD, Answer, ask, chunk_event, chunked, document, scripted_in_thread, transcript

ASKED = ("expect_request",)
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
ENDLESS = 1 << 20


def once(tmp_path: Path, data: bytes, *, stream: bool) -> Answer:
    script: Script = [ASKED, ("send", data), ("expect_close",)]
    with scripted_in_thread(script) as up, DataPlane(tmp_path / "s", upstream(up.url)) as plane:
        return ask(plane, "up/m", stream=stream)


TRAILERS = {
    "one value": b"0\r\nx: " + b"a" * ENDLESS,
    "one name": b"0\r\n" + b"a" * ENDLESS,
    "many fields": b"0\r\n" + b"x-a: 1\r\n" * (ENDLESS // 8),
    "an authorization": b"0\r\nAuthorization: Bearer x\r\nx: " + b"a" * ENDLESS,
}


@pytest.mark.parametrize("name", TRAILERS)
def test_endless_trailers_do_not_take_an_answer_back(tmp_path: Path, name: str) -> None:
    whole = once(tmp_path, JSON_HEAD + chunked(document()) + TRAILERS[name], stream=False)
    assert whole.json["choices"][0]["message"]["content"] == "hello"


def test_endless_trailers_behind_a_stream_that_is_complete(tmp_path: Path) -> None:
    once(tmp_path, STREAM_HEAD + chunked(transcript("a")) + TRAILERS["one value"], stream=True).check_stream("a")


def test_endless_trailers_behind_a_stream_that_is_not(tmp_path: Path) -> None:
    half = STREAM_HEAD + chunked(chunk_event({"content": "a"}))
    answer = once(tmp_path, half + TRAILERS["one value"], stream=True)
    assert answer.text == "a" and "[DONE]" not in answer.events
    assert answer.events[-1]["error"]["code"] == "upstream_invalid_response"


HEADS = {
    "interim answers": b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * (ENDLESS // 40),
    "empty interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * (ENDLESS // 25),
    "fields": b"HTTP/1.1 200 OK\r\n" + b"x-a: 1\r\n" * (ENDLESS // 8),
    "a chunk's extension": JSON_HEAD + b"5;x=" + b"a" * ENDLESS,
    "an extension in the middle": JSON_HEAD + b"1\r\n{\r\n5;x=" + b"a" * ENDLESS,
    "leading zeros": JSON_HEAD + b"0" * ENDLESS,
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", HEADS)
def test_what_is_no_body_is_cut_off_at_the_limit_of_a_head(tmp_path: Path, name: str, stream: bool) -> None:
    answer = once(tmp_path, HEADS[name], stream=stream)
    assert (answer.status, answer.error["code"]) == (502, "upstream_invalid_response")


# ------------------------------------------------------------------------------- without a socket


class Wire:
    """An upstream connection whose transport and pool only note what is done to them."""

    def __init__(self, *, stream: bool = False, max_answer: int = 1 << 30) -> None:
        self.aborted = False
        self.steps: list[tuple[Any, Any]] = []
        turn = SimpleNamespace(run=lambda *step: self.steps.append(step), send=lambda step, argument: step(argument))
        wheel = SimpleNamespace(now=0.0, set=lambda *args: None, drop=lambda *args: None)
        pool = cast(
            Pool, SimpleNamespace(wheel=wheel, turn=turn, lost=lambda upstream: None, put=lambda upstream: None)
        )
        self.upstream = HttpUpstream(pool)
        self.upstream.connection_made(cast(Any, self))
        self.asking = HttpAsking(pool, b"", b"", stream, Timeouts(), 1e9, max_answer)
        self.upstream.send(self.asking)

    def write(self, data: bytes) -> None:
        """Goes nowhere."""

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def read(self, data: bytes) -> None:
        self.upstream.get_buffer(0)[: len(data)] = data
        self.upstream.buffer_updated(len(data))
        while self.steps:
            step, argument = self.steps.pop(0)
            step(argument)

    def pause_reading(self) -> None:
        """A full read: nothing else comes in this turn."""

    resume_reading = pause_reading


def one_byte_chunks(count: int) -> bytes:
    return b"1\r\nx\r\n" * count


def test_one_byte_chunks_cost_the_same() -> None:
    wire = Wire()
    wire.read(JSON_HEAD)
    read = one_byte_chunks(5000)
    wire.read(read)
    early = opcodes(lambda: wire.read(read))
    for _ in range(200):
        wire.read(read)
    assert opcodes(lambda: wire.read(read)) == early
    short = one_byte_chunks(10)
    assert opcodes(lambda: wire.read(short)) == early  # nor does it grow with the chunks of a read
    wire.read(b"0\r\n\r\n")
    assert wire.asking.done and wire.upstream.body == b"x" * (203 * 5000 + 10)


def test_answer_in_two_reads_is_bounded() -> None:
    for size, fine in ((1000, True), (1001, False)):
        wire = Wire(max_answer=1000)
        wire.read(JSON_HEAD + b"1f4\r\n" + b"x" * 500 + b"\r\n")
        wire.read(b"%x\r\n" % (size - 500) + b"x" * (size - 500) + b"\r\n0\r\n\r\n")
        assert wire.asking.done and wire.aborted is not fine
        assert (wire.upstream.body == b"x" * size) is fine


@pytest.mark.parametrize("size", [1, 1000, 65536])
def test_no_more_than_a_head_is_read_of_a_trailer(size: int) -> None:
    wire = Wire()
    wire.read(JSON_HEAD + chunked(b"{}"))
    wire.read(b"0\r\nx: ")
    taken = 0
    while not wire.asking.done:
        wire.read(b"a" * size)
        taken += size
        assert taken <= MAX_HEAD + 2 * size
    assert wire.upstream.body == b"{}"


def stream_of(count: int, delta: dict[str, Any]) -> bytes:
    return chunk_event(delta) * count + chunk_event({}, "stop") + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "a"},
        {"reasoning_content": "hm", "content": "b"},
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "1"}}]},
    ],
)
def test_a_long_stream_is_added_up_in_parts_of_equal_cost(delta: dict[str, Any]) -> None:
    body = stream_of(600, delta)
    parts = answer_in_parts(body, Reply(ident="i", created=1, model="m"))
    costs = []
    answer = None
    while answer is None:

        def step() -> None:
            nonlocal answer
            answer = next(parts)

        costs.append(opcodes(step))
    assert answer.error is None and len(costs) >= len(body) / 8192
    typical = sorted(costs)[len(costs) // 2]
    assert max(costs) < 3 * typical


def test_other_work_runs_between_the_parts_of_a_long_stream() -> None:
    body = stream_of(2000, {"content": "a"})

    async def main() -> int:
        loop = asyncio.get_running_loop()
        turns = 0
        found = loop.create_future()

        def turn() -> None:
            nonlocal turns
            turns += 1
            if not found.done():
                loop.call_soon(turn)

        async def work() -> None:
            found.set_result(await summed_up(answer_in_parts(body, Reply(ident="i", created=1, model="m"))))

        loop.call_soon(turn)
        Fiber(work(), "sum", lambda fiber: None).step()
        answer = await found
        assert json.loads(answer.write(None, None))["choices"][0]["message"]["content"] == "a" * 2000
        return turns

    assert asyncio.run(main()) >= len(body) / 8192


def test_a_whole_call_gets_its_answer_from_a_long_stream(tmp_path: Path) -> None:
    body = stream_of(4000, {"content": "ab"})
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body)
    answer = once(tmp_path, head + body, stream=False)
    assert answer.json["choices"][0]["message"]["content"] == "ab" * 4000
