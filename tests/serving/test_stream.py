"""Streams from end to end: what an upstream sent, in whatever pieces, and what the client makes of it."""

from __future__ import annotations

import itertools
import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.testing import FAULTS, Provider, Script
from headgate.testing.provider import lorem
from tests.dataplane import TOKEN, DataPlane, post, upstream
from tests.serving.calls import (
    DONE,
    MESSAGES,
    PATH,
    STREAM_HEAD,
    Answer,
    Stream,
    ask,
    chunk_event,
    chunked,
    closed_by_id,
    document,
    events_of,
    last_closed,
    opened,
    request,
    scripted_in_thread,
    transcript,
    whole_json,
    whole_stream,
)

TEXTS = ("Grüße", " aus", " Zürich", " — ", "こんにちは", " 🎉", "\n\nend")
SURVIVABLE = sorted(
    name
    for name, row in FAULTS.items()
    if row.survivable and name not in ("huge-event", "slow-body", "stale-connection")
)


@pytest.fixture
def play(tmp_path: Path) -> Iterator[object]:
    """``play(*scripts, stream=…)``: the client's answer when the upstream does just that."""

    def run(*scripts: Script, stream: bool = True, **fields: object) -> Answer:
        with scripted_in_thread(*scripts) as up, DataPlane(tmp_path / "s", upstream(up.url)) as plane:
            return ask(plane, "up/m", stream=stream, **fields)

    yield run


def normalised(raw: bytes) -> list[object]:
    """Events without what differs from call to call."""
    return [event if event == DONE else {**event, "id": "", "created": 0} for event in events_of(raw)]


def test_every_way_of_cutting_the_upstream_gives_the_same_events(tmp_path: Path) -> None:
    """As one write, an event a write, a byte a write, and at random: with 2 ms between the writes of the first two."""
    whole = transcript(*TEXTS)
    rng = random.Random(7)
    cuttings: list[list[bytes]] = [
        [whole],
        [event + b"\n\n" for event in whole.split(b"\n\n")[:-1]],
        [whole[at : at + 1] for at in range(len(whole))],
    ]
    for _ in range(6):
        marks = sorted({0, len(whole), *rng.sample(range(len(whole)), 15)})
        cuttings.append([whole[a:b] for a, b in itertools.pairwise(marks)])
    scripts: list[Script] = []
    for pieces in cuttings:
        steps: list[object] = [("expect_request",), ("send", STREAM_HEAD)]
        for piece in pieces:
            steps.append(("send", chunked(piece)))
            if len(pieces) < 100:
                steps.append(("wait", 0.002))
        scripts.append([*steps, ("send", b"0\r\n\r\n"), ("close",)])  # type: ignore[list-item]
    with scripted_in_thread(*scripts) as up, DataPlane(tmp_path / "s", upstream(up.url)) as plane:
        answers = []
        for _ in scripts:
            answers.append(ask(plane, "up/m"))
            time.sleep(0.02)  # for the upstream's FIN to arrive: each cutting has a connection of its own
        answers[0].check_stream("".join(TEXTS))
        for answer in answers[1:]:
            assert normalised(answer.raw) == normalised(answers[0].raw)
        assert up.failures == []


def test_events_leave_at_once(tmp_path: Path) -> None:
    pause = 0.7
    role = chunked(chunk_event({"role": "assistant", "content": ""}))
    script: Script = [
        ("expect_request",), ("send", STREAM_HEAD), ("send", role),
        ("wait", pause), ("send", chunked(chunk_event({"content": "one"}))),
        ("wait", pause), ("send", chunked(chunk_event({"content": " two"}))),
        ("wait", pause), ("send", chunked(chunk_event({}, "stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n"),
    ]  # fmt: skip
    with scripted_in_thread(script) as up, DataPlane(tmp_path / "s", upstream(up.url)) as plane:
        with opened(plane, request("up/m")) as stream:
            begun = time.monotonic()
            stream.head()
            head_at = time.monotonic() - begun
            stream.until(b'"content":"one"')
            first_at = time.monotonic() - begun
            stream.until(b'" two"')
            second_at = time.monotonic() - begun
            answer = stream.rest()
        assert pause * 0.9 < head_at <= first_at < pause * 2  # the role alone commits nothing
        assert first_at < second_at < pause * 3  # and the first token never waits for a second
        answer.check_stream("one two")


@pytest.mark.parametrize("name", SURVIVABLE)
def test_what_a_provider_does_oddly_reaches_the_client_whole(gate: DataPlane, provider: Provider, name: str) -> None:
    streamed = ask(gate, f"up/fault/{name}?key=stream")
    finish = "tool_calls" if "tool" in name or "args" in name else "content_filter" if "filter" in name else "stop"
    assert streamed.status == 200 and streamed.ended, streamed.raw[:300]
    assert streamed.events[-1] == DONE and streamed.finishes == [finish], streamed.raw[-600:]
    assert last_closed(gate).outcome == "delivered"
    if finish == "stop" and name != "split-utf8":
        tokens = int(FAULTS[name].params["tokens"])
        streamed.check_stream(lorem.text(tokens))
    if name == "bad-json-event":
        return  # a whole answer that is no JSON is no answer
    whole = ask(gate, f"up/fault/{name}?key=whole", stream=False)
    assert whole.status == 200 and whole.ended, whole.raw[:300]
    if finish == "stop":
        assert whole.json["choices"][0]["message"]["content"] == streamed.text


@pytest.mark.parametrize("wanted", [False, True])
def test_usage_only_when_asked_but_always_asked_for(gate: DataPlane, provider: Provider, wanted: bool) -> None:
    fields = {"stream_options": {"include_usage": True}} if wanted else {}
    answer = ask(gate, "up/lorem?rate=0&ttft=0&tokens=5", **fields)
    sent = json.loads(provider.requests[-1].body)
    assert sent["stream_options"] == {"include_usage": True}
    with_usage = [chunk for chunk in answer.chunks if chunk.get("usage")]
    if wanted:
        assert [chunk["choices"] for chunk in with_usage] == [[]]
        assert with_usage[0]["usage"]["total_tokens"] == 8 and answer.events[-2] == with_usage[0]
        assert all(chunk["usage"] is None for chunk in answer.chunks if chunk["choices"])
    else:
        assert not with_usage and all(chunk["choices"] for chunk in answer.chunks)
    record = closed_by_id(gate, answer.headers["x-headgate-stream-id"])
    assert (record.prompt_tokens, record.completion_tokens, record.basis) == (3, 5, "provider")


def test_an_event_of_8_mib_passes_and_one_more_byte_is_an_error(gate: DataPlane) -> None:
    answer = ask(gate, f"up/fault/huge-event?bytes={8 << 20}")
    assert answer.ended and answer.events[-1] == DONE and len(answer.text) > 8_000_000
    over = ask(gate, f"up/fault/over-huge-event?bytes={(8 << 20) + 1}")
    assert (over.status, over.error["code"]) == (502, "upstream_answer_too_large")  # nothing was visible before it


def test_http_1_0_stream_ends_with_the_connection(gate: DataPlane) -> None:
    head, _, content = request("up/lorem?rate=0&ttft=0&tokens=20").partition(b"\r\n\r\n")
    with opened(gate, head.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n\r\n" + content) as stream:
        answer = stream.rest()
    assert "transfer-encoding" not in answer.headers and answer.headers["connection"] == "close"
    answer.check_stream(lorem.text(20))


def test_http_1_0_keep_alive_is_answered_with_close(gate: DataPlane) -> None:
    data = request("up/lorem?rate=0&ttft=0&tokens=5", "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    with opened(gate, data) as stream:
        answer = stream.rest()
    assert answer.headers["connection"] == "close"
    answer.check_stream(lorem.text(5))


def test_head_and_options_of_the_chat_path(gate: DataPlane) -> None:
    with gate.connect() as sock:
        sock.sendall(b"HEAD /v1/chat/completions HTTP/1.1\r\nHost: t\r\n\r\nGET /livez HTTP/1.1\r\nHost: t\r\n\r\n")
        data = b""
        while not data.endswith(b'{"status":"ok"}'):
            data += sock.recv(65536)
        first, _, second = data.partition(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 405") and second.startswith(b"HTTP/1.1 200"), "HEAD has no body"
    with opened(gate, b"OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: t\r\n\r\n") as stream:
        answer = stream.rest()
        assert answer.status == 204 and "POST" in answer.headers["allow"]


def test_pipelined_streams_come_in_order(gate: DataPlane) -> None:
    counts = (30, 1, 200, 7)
    with opened(gate, b"".join(request(f"up/lorem?rate=0&ttft=0&tokens={n}") for n in counts)) as stream:
        for count in counts:
            following = type(stream)(stream.sock)
            following.buffer = stream.buffer
            following.rest().check_stream(lorem.text(count))
            stream = following


def test_a_stream_that_fails_leaves_its_connection_usable(gate: DataPlane) -> None:
    with opened(gate, request("up/fault/cut")) as stream:
        stream.rest().check_truncated("upstream_cut")
        stream.sock.sendall(request("up/lorem?rate=0&ttft=0&tokens=3"))
        following = type(stream)(stream.sock)
        following.buffer = stream.buffer
        following.rest().check_stream(lorem.text(3))


def test_a_client_that_closes_right_after_done_is_a_success(gate: DataPlane) -> None:
    for how in ("fin", "rst"):
        with opened(gate, request("up/lorem?rate=0&ttft=0&tokens=3")) as stream:
            stream.head().until(b"[DONE]")
            stream.leave(how)
        record = closed_by_id(gate, stream.headers["x-headgate-stream-id"])
        assert (record.outcome, record.completion_tokens) == ("delivered", 3)


def test_headers_of_a_stream(gate: DataPlane) -> None:
    answer = ask(gate, "up/lorem?rate=0&ttft=0&tokens=1", "X-Request-Id: my-own.id")
    headers = answer.headers
    assert headers["x-request-id"] == "my-own.id" and headers["x-headgate-provider"] == "up"
    assert headers["cache-control"] == "no-cache" and headers["x-accel-buffering"] == "no"
    assert headers["x-headgate-requested-model"] == "up/lorem?rate=0&ttft=0&tokens=1"
    assert all(phase in headers["server-timing"] for phase in ("auth", "route", "queue", "connect", "ttfb", "gateway"))
    assert "content-encoding" not in headers and headers["x-headgate-stream-id"].startswith("chatcmpl-")


@pytest.mark.parametrize("stream", [True, False])
def test_unknown_and_duplicate_keys_pass_unchanged(gate: DataPlane, provider: Provider, stream: bool) -> None:
    raw = b'{"model":"x/none","messages":%b,"stream":%b,"odd":{"a":[1,2.50,"\\u00e9"]},"model":"up/echo"}' % (
        json.dumps(MESSAGES).encode(), b"true" if stream else b"false",
    )  # fmt: skip
    with opened(gate, post(PATH, raw)) as call:
        assert call.rest().status == 200
    sent = provider.requests[-1].body
    assert b'"odd":{"a":[1,2.50,"\\u00e9"]}' in sent and sent.count(b'"model"') == 1
    assert json.loads(sent)["model"] == "echo"


def test_a_whole_answer_is_ours_in_name_and_theirs_in_text(gate: DataPlane) -> None:
    answer = ask(gate, "up/lorem?rate=0&ttft=0&tokens=9", stream=False)
    value = answer.json
    assert value["choices"][0]["message"]["content"] == lorem.text(9) and value["usage"]["total_tokens"] == 12
    assert value["id"].startswith("chatcmpl-") and value["id"] == answer.headers["x-request-id"]
    assert value["headgate"]["provider"] == "up" and value["headgate"]["attempts"] == 1
    assert closed_by_id(gate, value["id"]).outcome == "delivered"


def test_a_body_of_20_mb_goes_through_and_comes_back(gate: DataPlane) -> None:
    text = "word " * 3_900_000
    data = json.dumps({"model": "up/echo", "messages": [{"role": "user", "content": text}]}).encode()
    with opened(gate, post(PATH, data), timeout=60) as call:
        answer = call.rest()
    assert answer.status == 200 and answer.json["choices"][0]["message"]["content"] == text


def test_a_stream_that_came_whole_with_a_length(play: object) -> None:
    play([("expect_request",), ("send", whole_stream(transcript("a", "b"))), ("close",)]).check_stream("ab")  # type: ignore[operator]


def test_json_for_a_stream_and_a_stream_for_json(tmp_path: Path) -> None:
    scripts: list[Script] = [
        [("expect_request",), ("send", whole_json(document("all of it"), b"connection: close")), ("close",)],
        [("expect_request",), ("send", whole_stream(transcript("in", " pieces"), b"connection: close")), ("close",)],
    ]
    with scripted_in_thread(*scripts) as up, DataPlane(tmp_path / "s", upstream(up.url)) as plane:
        ask(plane, "up/m").check_stream("all of it")
        assert ask(plane, "up/m", stream=False).json["choices"][0]["message"]["content"] == "in pieces"


def test_a_client_that_sends_its_request_with_expect_and_chunks(gate: DataPlane) -> None:
    data = json.dumps({"model": "up/echo", "messages": MESSAGES, "stream": True}).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {TOKEN}\r\nExpect: 100-continue\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    ).encode()
    with gate.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(head)
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        for at in range(0, len(data), 7):
            sock.sendall(chunked(data[at : at + 7]))
        sock.sendall(b"0\r\n\r\n")
        Stream(sock).rest().check_stream("say something please")
