"""Every API that callers speak with every API that providers speak, in the same exchange, over real sockets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate.model import Alias, Budget, Closed, Grant, ModelRow, Price, Provider, Snapshot, TargetRef
from headgate.policy.auth import digest
from headgate.testing.provider.scripted import Script, ScriptedUpstream
from tests.dataplane import TOKEN, DataPlane, post
from tests.serving.apis import APIS, ARGUMENTS, GEMINI, Read
from tests.serving.calls import STREAM_HEAD, Answer, chunked, last_closed, opened, whole_json, whole_stream
from tests.serving.calls import scripted_in_thread as running
from tests.serving.test_failed_attempts import KEY

PAIRS = [(one, other) for one in APIS for other in APIS]
OTHERS = [(one, other) for one, other in PAIRS if one != other]
FINE = Read("Hello world", [], "stop", (18, 5, 4))
CALLED = Read("I look.", [("call_1", "weather", ARGUMENTS)], "tool_calls", (18, 5, 4))
CLOSES = b"connection: close"


def answers(backend: str, stream: bool, called: bool = False) -> Script:
    api = APIS[backend]
    if stream:
        said = api.calling() if called else api.stream("Hello ", "world")
        return [("expect_request",), ("send", whole_stream(said, CLOSES))]
    document = api.document("I look." if called else "Hello world", called)
    return [("expect_request",), ("send", whole_json(json.dumps(document).encode(), CLOSES))]


def refuses(backend: str, status: bytes, word: str, said: str) -> Script:
    body = json.dumps(APIS[backend].refusal(word, said)).encode()
    return [("expect_request",), ("send", whole_json(body, CLOSES, status=status))]


def cut(backend: str, *said: str) -> Script:
    return [("expect_request",), ("send", STREAM_HEAD + chunked(APIS[backend].pieces(*said))), ("close",)]


@contextlib.contextmanager
def chain(
    state: Path, *upstreams: tuple[str, list[Script]], budget: Budget | None = None
) -> Iterator[tuple[DataPlane, list[ScriptedUpstream]]]:
    """An alias ``chain`` over providers p0, p1, …, each of which speaks its API."""
    with contextlib.ExitStack() as stack:
        ups = [stack.enter_context(running(*scripts)) for _, scripts in upstreams]
        providers = {}
        for i, (up, (backend, _)) in enumerate(zip(ups, upstreams, strict=True)):
            price = Price(1_000_000_000, 2_000_000_000)
            trims = APIS[backend].trims
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


def ask(plane: DataPlane, client: str, stream: bool, tools: bool = False, **more: Any) -> Answer:
    api = APIS[client]
    members = {"model": "chain", "stream": stream, **api.request(stream, tools), **more}
    with opened(plane, post(api.path("chain", stream), json.dumps(members).encode())) as one:
        return one.rest()


def read(client: str, answer: Answer, stream: bool) -> Read:
    assert answer.status == 200 and answer.ended, answer.raw
    return APIS[client].read(answer, stream)


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
        assert read(client, ask(plane, client, stream, tools=True), stream) == CALLED
        refusal = ask(plane, client, stream)
    assert refusal.status == 400
    error = APIS[client].fault(refusal.json)
    assert (error["type"], error["message"]) == ("invalid_request_error", "top_p: must be at most 1")
    text_request, tool_request, _ = asked(upstream)
    api = APIS[backend]
    assert {request.path for request in upstream.requests} == {"/v1" + api.takes("m-up", stream)}
    for request in upstream.requests:
        assert dict(request.headers).get("anthropic-version") == api.fields.get("anthropic-version")
    if backend != GEMINI:  # there the path says both
        assert text_request["model"] == "m-up" and bool(text_request.get("stream")) == stream
    assert api.asked(text_request) == ([api.said("user", "Hi")], 50, [])
    assert api.asked(tool_request)[2] == ["weather"]


@pytest.mark.parametrize("client", APIS)
def test_refusals_at_the_door_have_the_clients_shape(tmp_path: Path, client: str) -> None:
    member = APIS[client].messages
    with chain(tmp_path / "s", (client, [answers(client, True)])) as (plane, _):
        refusal = ask(plane, client, True, **{member: []})
    assert refusal.status == 400 and APIS[client].fault(refusal.json)["param"] == member


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("client", APIS)
@pytest.mark.parametrize(("first", "second"), OTHERS)
def test_failover_before_the_first_token(tmp_path: Path, client: str, first: str, second: str, stream: bool) -> None:
    busy = refuses(first, b"529 Overloaded", "overloaded_error", "Overloaded")
    with chain(tmp_path / "s", (first, [busy]), (second, [answers(second, stream)])) as (plane, _):
        assert read(client, ask(plane, client, stream), stream) == FINE
        record = closed(plane)
    assert [(one.provider, one.code) for one in record.attempts] == [("p0", "upstream_overloaded"), ("p1", "")]


@pytest.mark.parametrize(("client", "first"), PAIRS)
def test_error_event_before_the_first_token_fails_over(tmp_path: Path, client: str, first: str) -> None:
    fails: Script = [("expect_request",), ("send", whole_stream(APIS[first].failing(), CLOSES))]
    second = "openai_chat"
    with chain(tmp_path / "s", (first, [fails]), (second, [answers(second, True)])) as (plane, _):
        assert read(client, ask(plane, client, True), True) == FINE
        record = closed(plane)
    assert [(one.provider, one.code) for one in record.attempts] == [("p0", "upstream_overloaded"), ("p1", "")]


@pytest.mark.parametrize("client", APIS)
@pytest.mark.parametrize(("first", "second"), [*OTHERS, ("anthropic_messages", "anthropic_messages")])
def test_broken_stream_goes_on_in_the_other_api(tmp_path: Path, client: str, first: str, second: str) -> None:
    api = APIS[second]
    rest = api.stream(" world" if api.trims == "yes" else "world", ", all of it.")
    scripts: list[Script] = [[("expect_request",), ("send", whole_stream(rest, CLOSES))]]
    with chain(tmp_path / "s", (first, [cut(first, "Hel", "lo ")]), (second, scripts)) as (plane, (_, other)):
        found = read(client, ask(plane, client, True), True)
        record = closed(plane)
    assert (found.text, found.reason) == ("Hello world, all of it.", "stop")
    assert [(one.provider, one.why, one.code) for one in record.attempts] == [
        ("p0", "first", "upstream_cut"), ("p1", "continue", ""),
    ]  # fmt: skip
    (request,) = asked(other)
    conversation, most, _ = api.asked(request)
    assert conversation == [api.said("user", "Hi"), api.said("assistant", "Hello ")] and most < 50
    assert found.usage[2] == record.completion_tokens > 4


@pytest.mark.parametrize(("client", "backend"), PAIRS)
def test_broken_stream_ends_with_the_clients_error(tmp_path: Path, client: str, backend: str) -> None:
    with chain(tmp_path / "s", (backend, [cut(backend, "Hello ")])) as (plane, _):
        answer = ask(plane, client, True, headgate={"on_midstream_failure": "error", "retries": 0})
    assert answer.status == 200 and answer.ended
    error = APIS[client].error(answer)
    assert error["code"] == "upstream_cut" and error["not_continued"]
