"""Chat and Messages on both sides of the same exchange, over real sockets: every client with every provider."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from headgate.model import Alias, Budget, Closed, Grant, ModelRow, Price, Provider, Snapshot, TargetRef
from headgate.policy.auth import digest
from headgate.testing.provider.scripted import Script, ScriptedUpstream
from tests.dataplane import TOKEN, DataPlane, post
from tests.dialects.anthropic_messages import streams
from tests.dialects.anthropic_messages.streams import block, check_order, delta, end, events, start, stop, text
from tests.serving.calls import (
    DONE,
    STREAM_HEAD,
    Answer,
    chunk_event,
    chunked,
    events_of,
    last_closed,
    opened,
    whole_json,
    whole_stream,
)
from tests.serving.calls import scripted_in_thread as running
from tests.serving.test_failed_attempts import KEY

CHAT, MESSAGES = "openai_chat", "anthropic_messages"
PATHS = {CHAT: "/v1/chat/completions", MESSAGES: "/v1/messages"}
UPSTREAM_PATHS = {CHAT: "/v1/chat/completions", MESSAGES: "/v1/messages"}
PAIRS = [(client, backend) for client in PATHS for backend in PATHS]
PARAMETERS = {"city": {"type": "string"}}
SCHEMA = {"type": "object", "properties": PARAMETERS}
USED = {"prompt_tokens": 18, "completion_tokens": 4, "total_tokens": 22, "prompt_tokens_details": {"cached_tokens": 5}}
USED_SPLIT = {"input_tokens": 13, "cache_read_input_tokens": 5, "output_tokens": 4}
LAST = b'data: {"choices":[],"usage":%b}\n\n' % json.dumps(USED).encode()


# ------------------------------------------------------------------------------------- what the client reads


class Read(NamedTuple):
    """An answer, whichever API and form it came in.  ``usage``: prompt, cached and completion tokens."""

    text: str
    calls: list[tuple[str, str, Any]]
    reason: str
    usage: tuple[int, int, int]


FINE = Read("Hello world", [], "stop", (18, 5, 4))
CALLED = Read("I look.", [("call_1", "weather", {"city": "Köln"})], "tool_calls", (18, 5, 4))
_REASONS = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"}


def read(client: str, answer: Answer, stream: bool) -> Read:
    assert answer.status == 200 and answer.ended, answer.raw
    if client == CHAT:
        return _of_chat_events(answer) if stream else _of_completion(answer.json)
    found = _joined(answer) if stream else answer.json
    usage = found["usage"]
    cached, written = (usage.get(f"cache_{name}_input_tokens", 0) for name in ("read", "creation"))
    return Read(
        "".join(one["text"] for one in found["content"] if one["type"] == "text"),
        [(one["id"], one["name"], one["input"]) for one in found["content"] if one["type"] == "tool_use"],
        _REASONS[found["stop_reason"]],
        (usage["input_tokens"] + written + cached, cached, usage["output_tokens"]),
    )


def _of_completion(found: dict[str, Any]) -> Read:
    message, usage = found["choices"][0]["message"], found["usage"]
    calls = [
        (one["id"], one["function"]["name"], json.loads(one["function"]["arguments"]))
        for one in message.get("tool_calls", ())
    ]
    return Read(message["content"] or "", calls, found["choices"][0]["finish_reason"], _counts(usage))


def _of_chat_events(answer: Answer) -> Read:
    assert answer.events[-1] == DONE
    usage = answer.chunks[-1]["usage"]
    pieces: dict[int, list[Any]] = {}
    for chunk in answer.chunks:
        for choice in chunk["choices"]:
            for one in choice["delta"].get("tool_calls", ()):
                call = pieces.setdefault(one["index"], ["", "", ""])
                call[0] += one.get("id") or ""
                call[1] += one["function"].get("name") or ""
                call[2] += one["function"].get("arguments") or ""
    (reason,) = answer.finishes
    return Read(answer.text, [(a, b, json.loads(c)) for a, b, c in pieces.values()], reason, _counts(usage))


def _counts(usage: dict[str, Any]) -> tuple[int, int, int]:
    cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    return usage["prompt_tokens"], cached, usage["completion_tokens"]


def _joined(answer: Answer) -> dict[str, Any]:
    """A stream's message, as an SDK accumulates it."""
    found = streams.parse(answer.raw)
    check_order(found)
    assert found[-1] == {"type": "message_stop"} and found[0]["type"] == "message_start"
    message: dict[str, Any] = found[0]["message"]
    assert answer.headers["x-headgate-stream-id"] == message["id"]
    for event in found[1:]:
        match event["type"]:
            case "content_block_start":
                message["content"].append({**event["content_block"], "json": ""})
            case "content_block_delta":
                said = event["delta"]
                one = message["content"][event["index"]]
                one["text"] = one.get("text", "") + said.get("text", "")
                one["json"] += said.get("partial_json", "")
            case "content_block_stop":
                one = message["content"][event["index"]]
                one["input"] = json.loads(one["json"] or "{}")
            case "message_delta":
                message |= event["delta"]
                message["usage"] |= event["usage"]
    return message


# ------------------------------------------------------------------------------------- what the upstream says


def pieces(backend: str, *said: str) -> bytes:
    """The beginning of a stream."""
    if backend == CHAT:
        head = chunk_event({"role": "assistant", "content": ""})
        return head + b"".join(chunk_event({"content": one}) for one in said)
    return events(start(**USED_SPLIT), block(0, type="text", text=""), *(text(0, one) for one in said))


def whole(backend: str, *said: str) -> bytes:
    """A stream of text."""
    if backend == CHAT:
        return pieces(backend, *said) + chunk_event({}, "stop") + LAST + b"data: [DONE]\n\n"
    return pieces(backend, *said) + events(stop(0), end("end_turn", 4), streams.DONE)


def calling(backend: str) -> bytes:
    """A stream of text and a tool call."""
    if backend == CHAT:
        call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
        parts = ('{"city": "K', 'öln"}')
        rest = [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in parts]
        deltas = b"".join(map(chunk_event, [{"tool_calls": [call]}, *rest]))
        return pieces(CHAT, "I look.") + deltas + chunk_event({}, "tool_calls") + LAST + b"data: [DONE]\n\n"
    return pieces(MESSAGES, "I ", "look.") + events(
        stop(0),
        block(1, type="tool_use", id="call_1", name="weather", input={}),
        delta(1, "input_json_delta", partial_json='{"city": "K'),
        delta(1, "input_json_delta", partial_json='öln"}'),
        stop(1),
        end("tool_use", 4),
        streams.DONE,
    )


def document(backend: str, called: bool) -> bytes:
    """The same answers, whole."""
    said, arguments = ("I look.", {"city": "Köln"}) if called else ("Hello world", None)
    if backend == CHAT:
        message: dict[str, Any] = {"role": "assistant", "content": said}
        if called:
            function = {"name": "weather", "arguments": json.dumps(arguments)}
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if called else "stop"}
        found = {"id": "x", "object": "chat.completion", "created": 1, "model": "m-up", "choices": [choice]}
        return json.dumps({**found, "usage": USED}).encode()
    content: list[dict[str, Any]] = [{"type": "text", "text": said}]
    if called:
        content.append({"type": "tool_use", "id": "call_1", "name": "weather", "input": arguments})
    found = {"id": "x", "type": "message", "role": "assistant", "model": "m-up", "content": content}
    reason = "tool_use" if called else "end_turn"
    return json.dumps({**found, "stop_reason": reason, "stop_sequence": None, "usage": USED_SPLIT}).encode()


def answers(backend: str, stream: bool, called: bool = False) -> Script:
    if stream:
        said = calling(backend) if called else whole(backend, "Hello ", "world")
        return [("expect_request",), ("send", whole_stream(said, b"connection: close"))]
    return [("expect_request",), ("send", whole_json(document(backend, called), b"connection: close"))]


def refuses(backend: str, status: bytes, word: str, said: str) -> Script:
    error: dict[str, Any] = {"error": {"type": word, "message": said}}
    if backend == MESSAGES:
        error["type"] = "error"
    return [
        ("expect_request",),
        ("send", whole_json(json.dumps(error).encode(), b"connection: close", status=status)),
    ]


def cut(backend: str, *said: str) -> Script:
    return [("expect_request",), ("send", STREAM_HEAD + chunked(pieces(backend, *said))), ("close",)]


# ------------------------------------------------------------------------------------- the call


@contextlib.contextmanager
def chain(
    state: Path, *upstreams: tuple[str, list[Script]], budget: Budget | None = None
) -> Iterator[tuple[DataPlane, list[ScriptedUpstream]]]:
    """An alias ``chain`` over providers p0, p1, …, each of which speaks its API."""
    with contextlib.ExitStack() as stack:
        ups = [stack.enter_context(running(*scripts)) for _, scripts in upstreams]
        providers = {}
        for i, (up, (backend, _)) in enumerate(zip(ups, upstreams, strict=True)):
            trims = "yes" if backend == MESSAGES else "no"
            price = Price(1_000_000_000, 2_000_000_000)
            row = ModelRow("m", upstream_model="m-up", price=price, prefill="trailing", prefill_trims=trims)
            providers[f"p{i}"] = Provider(f"p{i}", up.url, dialect=backend, auth="none", models={"m": row})
        world = Snapshot(
            tokens={digest(KEY, TOKEN.encode()): Grant("t0", "test", budget=budget)},
            providers=providers,
            aliases={"chain": Alias("chain", tuple(TargetRef(f"{name}/m") for name in providers))},
        )
        state.mkdir(exist_ok=True)
        (state / "instance.key").write_bytes(KEY)
        yield stack.enter_context(DataPlane(state, snapshot=world)), ups


def ask(plane: DataPlane, client: str, stream: bool, **more: Any) -> Answer:
    members = {"model": "chain", "max_tokens": 50, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
    if client == CHAT and stream:
        members["stream_options"] = {"include_usage": True}
    with opened(plane, post(PATHS[client], json.dumps({**members, **more}).encode())) as one:
        return one.rest()


def with_tools(client: str) -> dict[str, Any]:
    if client == CHAT:
        function = {"name": "weather", "parameters": SCHEMA}
        return {"tools": [{"type": "function", "function": function}], "tool_choice": "auto"}
    return {"tools": [{"name": "weather", "input_schema": SCHEMA}], "tool_choice": {"type": "auto"}}


def asked(upstream: ScriptedUpstream) -> list[dict[str, Any]]:
    assert not upstream.failures
    return [json.loads(request.body) for request in upstream.requests]


def closed(plane: DataPlane) -> Closed:
    plane.wait_for(Closed)
    return last_closed(plane)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("client", "backend"), PAIRS)
def test_text_tools_and_errors(tmp_path: Path, client: str, backend: str, stream: bool) -> None:
    scripts = [
        answers(backend, stream),
        answers(backend, stream, called=True),
        refuses(backend, b"400 Bad Request", "invalid_request_error", "top_p: must be at most 1"),
    ]
    with chain(tmp_path / "s", (backend, scripts)) as (plane, (upstream,)):
        assert read(client, ask(plane, client, stream), stream) == FINE
        record = closed(plane)
        assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (18, 4, 5)
        assert record.cost > 0 and record.outcome == "delivered"
        assert read(client, ask(plane, client, stream, **with_tools(client)), stream) == CALLED
        refusal = ask(plane, client, stream)
    assert refusal.status == 400
    error = refusal.json["error"]
    assert (error["type"], error["message"]) == ("invalid_request_error", "top_p: must be at most 1")
    assert refusal.json.get("type") == (None if client == CHAT else "error")
    text_request, tool_request, _ = asked(upstream)
    assert {request.path for request in upstream.requests} == {UPSTREAM_PATHS[backend]}
    versions = [dict(request.headers).get("anthropic-version") for request in upstream.requests]
    assert versions == ["2023-06-01" if backend == MESSAGES else None] * 3
    assert text_request["model"] == "m-up" and text_request["messages"] == [{"role": "user", "content": "Hi"}]
    assert text_request["max_tokens"] == 50 and bool(text_request.get("stream")) == stream
    (tool,) = tool_request["tools"]
    assert (tool if backend == MESSAGES else tool["function"])["name"] == "weather"


@pytest.mark.parametrize("client", PATHS)
def test_refusals_at_the_door_have_the_clients_shape(tmp_path: Path, client: str) -> None:
    with chain(tmp_path / "s", (MESSAGES, [answers(MESSAGES, True)])) as (plane, _):
        refusal = ask(plane, client, True, messages=[])
    assert refusal.status == 400 and refusal.json["error"]["param"] == "messages"
    assert refusal.json.get("type") == (None if client == CHAT else "error")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("client", PATHS)
@pytest.mark.parametrize(("first", "second"), [(CHAT, MESSAGES), (MESSAGES, CHAT)])
def test_failover_before_the_first_token(tmp_path: Path, client: str, first: str, second: str, stream: bool) -> None:
    busy = refuses(first, b"529 Overloaded", "overloaded_error", "Overloaded")
    with chain(tmp_path / "s", (first, [busy]), (second, [answers(second, stream)])) as (plane, _):
        assert read(client, ask(plane, client, stream), stream) == FINE
        record = closed(plane)
    assert [(one.provider, one.code) for one in record.attempts] == [("p0", "upstream_overloaded"), ("p1", "")]


@pytest.mark.parametrize("client", PATHS)
def test_error_event_before_the_first_token_fails_over(tmp_path: Path, client: str) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    body = whole_stream(events(start(**USED_SPLIT), error), b"connection: close")
    first: Script = [("expect_request",), ("send", body)]
    with chain(tmp_path / "s", (MESSAGES, [first]), (CHAT, [answers(CHAT, True)])) as (plane, _):
        assert read(client, ask(plane, client, True), True) == FINE
        record = closed(plane)
    assert [(one.provider, one.code) for one in record.attempts] == [("p0", "upstream_overloaded"), ("p1", "")]


@pytest.mark.parametrize("client", PATHS)
@pytest.mark.parametrize(("first", "second"), [(CHAT, MESSAGES), (MESSAGES, CHAT), (MESSAGES, MESSAGES)])
def test_broken_stream_goes_on_in_the_other_api(tmp_path: Path, client: str, first: str, second: str) -> None:
    rest = whole(second, " world" if second == MESSAGES else "world", ", all of it.")
    scripts: list[Script] = [[("expect_request",), ("send", whole_stream(rest, b"connection: close"))]]
    with chain(tmp_path / "s", (first, [cut(first, "Hel", "lo ")]), (second, scripts)) as (plane, (_, other)):
        found = read(client, ask(plane, client, True), True)
        record = closed(plane)
    assert (found.text, found.reason) == ("Hello world, all of it.", "stop")
    assert [(one.provider, one.why, one.code) for one in record.attempts] == [
        ("p0", "first", "upstream_cut"), ("p1", "continue", ""),
    ]  # fmt: skip
    (request,) = asked(other)
    prefill = {"role": "assistant", "content": "Hello" if second == MESSAGES else "Hello "}
    assert request["messages"] == [{"role": "user", "content": "Hi"}, prefill]
    assert request["max_tokens"] < 50
    assert found.usage[2] == record.completion_tokens > 4


@pytest.mark.parametrize(("client", "backend"), PAIRS)
def test_broken_stream_ends_with_the_clients_error(tmp_path: Path, client: str, backend: str) -> None:
    with chain(tmp_path / "s", (backend, [cut(backend, "Hello ")])) as (plane, _):
        answer = ask(plane, client, True, headgate={"on_midstream_failure": "error", "retries": 0})
    assert answer.status == 200 and answer.ended
    if client == CHAT:
        error = events_of(answer.raw)[-1]["error"]
    else:
        last = streams.parse(answer.raw)[-1]
        assert last["type"] == "error" and last["request_id"] == answer.headers["x-headgate-stream-id"]
        error = last["error"]
        assert error["type"] == "api_error"
    assert error["code"] == "upstream_cut" and error["not_continued"]
