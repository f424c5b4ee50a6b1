"""echo and lorem, the catalogue, errors, records: against the process and against the library."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from headgate.testing import exchanges, serve
from headgate.testing.provider import lorem
from tests.testing.raw import PROMPT, ask, chat, read, request, run

FAST = "lorem?rate=0&ttft=0"


def test_echo_streams_the_last_user_message_word_by_word(provider_port: int) -> None:
    said = 'first "quoted"\n second   word  ü 🎉 '
    messages = [
        *PROMPT,
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": [{"type": "text", "text": said}]},
    ]
    answer = run(ask(provider_port, chat("echo", messages=messages)))
    assert (answer.status, answer.ended, answer.text) == (200, "complete", said)
    assert answer.headers["content-type"].startswith("text/event-stream")
    contents = [chunk["choices"][0]["delta"].get("content") for chunk in answer.chunks[1:-1]]
    assert contents == ["first", ' "quoted"', "\n second", "   word", "  ü", " 🎉", " "]
    assert answer.chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert answer.finishes == ["stop"]
    assert answer.payloads[-1] == "[DONE]"
    assert all("usage" not in chunk for chunk in answer.chunks)


def test_usage_comes_on_an_extra_chunk_only_when_asked_for(provider_port: int) -> None:
    answer = run(ask(provider_port, chat(f"{FAST}&tokens=7", stream_options={"include_usage": True})))
    *others, last = answer.chunks
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}
    assert [chunk["usage"] for chunk in others] == [None] * 9
    assert answer.text == lorem.text(7)


def test_not_streamed(provider_port: int) -> None:
    answer = run(ask(provider_port, chat(f"{FAST}&tokens=9", stream=False)))
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["object"] == "chat.completion"
    assert answer.json["choices"][0]["message"]["content"] == lorem.text(9)
    assert answer.json["usage"] == {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_cap_ends_with_length(provider_port: int, field: str) -> None:
    for cap in (5, 1, 0):
        answer = run(ask(provider_port, chat(FAST, **{field: cap})))
        assert (answer.text, answer.finishes) == (lorem.text(cap) if cap else "", ["length"])
    assert run(ask(provider_port, chat(f"{FAST}&tokens=7", **{field: -1}))).finishes == ["stop"]


@pytest.mark.parametrize("stream", [True, False])
def test_rate_and_ttft_are_kept(provider_port: int, stream: bool) -> None:
    answer = run(ask(provider_port, chat("lorem", stream=stream, lorem={"rate": 100, "ttft": 0.2, "tokens": 31})))
    assert answer.duration_s >= 0.48  # 0.2 s and thirty gaps of 10 ms
    assert (answer.first_byte_s < answer.duration_s - 0.4) == stream


def test_a_trailing_assistant_message_is_gone_on_from(provider_port: int) -> None:
    whole = lorem.text(12)
    for cut in (0, 5, 6, 8, len(whole) - 1):
        messages = [*PROMPT, {"role": "assistant", "content": whole[:cut]}]
        assert run(ask(provider_port, chat(f"{FAST}&tokens=12", messages=messages))).text == whole[cut:]
    messages = [*PROMPT, {"role": "assistant", "content": "something else"}]
    assert run(ask(provider_port, chat(f"{FAST}&tokens=12", messages=messages))).text == whole


def test_the_text_is_its_tokens_and_keeps_no_surprises() -> None:
    assert lorem.text(9) == "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed"
    assert lorem.split(lorem.text(500)) == lorem.tokens(500)
    assert lorem.tokens(10_000)[4096:4098] == lorem.tokens(2)
    assert len(set(lorem.tokens(4096)[69:])) > 60


BAD = [
    (b'{"model": "echo", "messages": [', 400, "invalid_json", None),
    (b'{"model": "echo"}', 400, "invalid_value", None),
    ({"model": 3, "messages": PROMPT}, 400, "invalid_value", "model"),
    ({"model": "echo", "messages": []}, 400, "invalid_value", "messages"),
    ({"model": "echo", "messages": PROMPT, "max_tokens": -2}, 400, "invalid_value", "max_tokens"),
    ({"model": "echo", "messages": PROMPT, "n": 2}, 400, "invalid_value", "n"),
    ({"model": "echo?rate=1", "messages": PROMPT}, 400, "invalid_value", "model"),
    ({"model": "lorem?rate=fast", "messages": PROMPT}, 400, "invalid_value", "model"),
    ({"model": "lorem?rate=-1", "messages": PROMPT}, 400, "invalid_value", "model"),
    ({"model": "lorem?rate=inf", "messages": PROMPT}, 400, "invalid_value", "model"),
    ({"model": "lorem?speed=1", "messages": PROMPT}, 400, "invalid_value", "model"),
    ({"model": "lorem?rate", "messages": PROMPT}, 400, "invalid_value", "model"),
    ({"model": "lorem", "messages": PROMPT, "lorem": {"tokens": 1e9}}, 400, "invalid_value", "model"),
    ({"model": "lorem", "messages": PROMPT, "lorem": {"token": 1}}, 400, "invalid_value", "lorem"),
    ({"model": "fault/cut?key=a/b", "messages": PROMPT}, 400, "invalid_value", "model"),
    ({"model": "nothing", "messages": PROMPT}, 404, "model_not_found", "model"),
    ({"model": "fault/nothing", "messages": PROMPT}, 404, "model_not_found", "model"),
]


@pytest.mark.parametrize(("body", "status", "code", "param"), BAD)
def test_what_cannot_be_meant_is_refused_in_openais_shape(
    provider_port: int, body: object, status: int, code: str, param: str | None
) -> None:
    answer = run(ask(provider_port, request(body)))
    error = answer.json["error"]
    assert (answer.status, error["code"], error["param"]) == (status, code, param)
    assert error["message"]
    assert set(error) == {"message", "type", "param", "code"}


def test_every_listed_model_answers(provider_port: int) -> None:
    listed = run(ask(provider_port, request(b"", "/any/prefix/models", "GET"))).json["data"]
    assert {"echo", "lorem", "fault/429-once", "fault/cut"} <= {entry["id"] for entry in listed}
    one = run(ask(provider_port, request(b"", "/v1/models/fault/cut", "GET"))).json
    assert one in listed
    assert run(ask(provider_port, request(b"", "/v1/models/none", "GET"))).status == 404
    assert run(ask(provider_port, request(b"", "/v1/nothing", "GET"))).status == 404


async def _two_on_one_connection(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(chat(f"{FAST}&tokens=3", stream=False) + chat("fault/byte-at-a-time?tokens=2") + chat("echo"))
    first = await reader.readuntil(b"}}")
    assert b"Lorem ipsum dolor" in first
    second = await reader.readuntil(b"0\r\n\r\n")
    assert b"DONE" in second.replace(b"\r\n1\r\n", b"")
    assert b"please" in await reader.readuntil(b"0\r\n\r\n")
    writer.close()


def test_pipelined_requests_are_answered_in_order(provider_port: int) -> None:
    run(_two_on_one_connection(provider_port))


def test_what_is_no_http_gets_400(provider_port: int) -> None:
    assert run(ask(provider_port, b"NONSENSE\r\n\r\n")).status == 400


async def _leaves(how: str) -> None:
    async with serve() as provider:
        reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
        writer.write(chat("lorem?rate=100&ttft=0&tokens=1000"))
        await reader.readuntil(b"ipsum")
        before = provider.requests[0].tokens
        if how == "reset":
            writer.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
            )
        writer.transport.abort()
        await provider.until(lambda p: p.requests[0].how)
        (seen,) = provider.requests
        assert seen.how == "client_closed"
        assert seen.ended_at is not None and seen.tokens <= before + 50  # of a thousand
        assert seen.path == "/v1/chat/completions" and seen.headers["authorization"] == "Bearer sk-canary"
        sent = seen.tokens
        await asyncio.sleep(0.1)
        assert seen.tokens == sent
        assert not provider.connections


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_a_client_that_leaves_stops_generation_at_once(how: str) -> None:
    run(_leaves(how))


async def _slow_reader() -> None:
    async with serve() as provider:
        reader, writer = await asyncio.open_connection("127.0.0.1", provider.port, limit=1024)
        writer.write(chat(f"{FAST}&tokens=100000"))
        await asyncio.sleep(0.5)
        stuck = provider.requests[0].tokens
        assert 0 < stuck < 60_000  # what socket buffers and the transport's own hold, not the whole answer
        answer = await read(reader)
        assert answer.text == lorem.text(100_000)
        writer.close()


def test_slow_client_pauses_generation() -> None:
    run(_slow_reader())


async def _records() -> None:
    async with serve(keys=["right"], keep=2) as provider:
        refused = await ask(provider.port, chat("echo"))
        assert (refused.status, refused.json["error"]["code"]) == (401, "invalid_api_key")
        good = request({"model": "echo", "messages": PROMPT}, headers="authorization: Bearer right\r\n")
        for _ in range(3):
            assert (await ask(provider.port, good)).status == 200
        assert [seen.how for seen in provider.requests] == ["complete"] * 2
        assert json.loads(provider.requests[0].body)["model"] == "echo"
        answer = await ask(provider.port, request(b"", "/__seen", "GET", "authorization: Bearer right\r\n"))
        assert [seen.path for seen in exchanges(answer.body)] == ["/v1/chat/completions", "/__seen"]
        with pytest.raises(TimeoutError):
            await provider.until(lambda p: False, within=0.02)


def test_records_are_bounded_and_keys_are_checked() -> None:
    run(_records())


async def _many(count: int) -> None:
    async with serve(keep=0) as provider:
        data = chat("lorem?rate=20&ttft=0.1&tokens=20")
        answers = await asyncio.gather(*(ask(provider.port, data, 60) for _ in range(count)))
        assert all(answer.text == lorem.text(20) for answer in answers)
        assert not provider.requests


def test_hundreds_of_streams_at_once_are_whole() -> None:
    run(_many(300))
