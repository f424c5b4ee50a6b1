"""Anthropic's own client through the gateway: tools, thinking, failures, over upstreams of both APIs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import anthropic
import httpx
import pytest

from headgate.model import Alias, Closed, Grant, ModelRow, Provider, Snapshot, TargetRef
from headgate.policy.auth import digest
from tests.agents.turns import ToolUse, Turn
from tests.agents.upstream import AgentUpstream, agent_upstream
from tests.dataplane import TOKEN, DataPlane
from tests.serving.test_failed_attempts import KEY

CHAT, MESSAGES, RESPONSES, GEMINI = "chat", "anthropic", "responses", "gemini"
DIALECTS = {
    MESSAGES: "anthropic_messages", CHAT: "openai_chat", RESPONSES: "openai_responses", GEMINI: "gemini",
}  # fmt: skip
TOOLS: Any = [{"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]
SCRIPT = (
    Turn("I look.", (ToolUse("weather", {"city": "Köln"}),), "The user wants the weather."),
    Turn("It is sunny in Köln, and it will stay so until the evening.", thoughts="The tool says: sunny."),
)
CHAINS = [
    (MESSAGES, MESSAGES), (MESSAGES, CHAT), (CHAT, MESSAGES), (MESSAGES, RESPONSES), (GEMINI, MESSAGES),
]  # fmt: skip


class Bench(NamedTuple):
    upstream: AgentUpstream
    plane: DataPlane
    client: anthropic.Anthropic


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One upstream that speaks both APIs, and an alias for each chain of two."""
    state = tmp_path_factory.mktemp("messages") / "s"
    state.mkdir()
    (state / "instance.key").write_bytes(KEY)
    row = ModelRow("m", capabilities=("tools", "reasoning", "vision"))
    with agent_upstream(SCRIPT) as upstream:
        providers = {
            f"{name}{i}": Provider(
                f"{name}{i}", upstream.url, dialect=dialect, auth="none", preset=name, models={"m": row}
            )
            for name, dialect in DIALECTS.items()
            for i in (1, 2)
        }
        aliases = {
            f"{first}-{second}": Alias(
                f"{first}-{second}", (TargetRef(f"{first}1/m"), TargetRef(f"{second}2/m")), retries=0
            )
            for first, second in CHAINS
        }
        snapshot = Snapshot(
            tokens={digest(KEY, TOKEN.encode()): Grant("t0", "test")}, providers=providers, aliases=aliases
        )
        with (
            DataPlane(state, snapshot=snapshot) as plane,
            anthropic.Anthropic(base_url=plane.url, api_key=TOKEN, max_retries=0, timeout=20) as client,
        ):
            yield Bench(upstream, plane, client)


def create(bench: Bench, stream: bool, **members: Any) -> anthropic.types.Message:
    if not stream:
        return bench.client.messages.create(max_tokens=4000, tools=TOOLS, **members)
    with bench.client.messages.stream(max_tokens=4000, tools=TOOLS, **members) as events:
        return events.get_final_message()


def kinds(message: anthropic.types.Message) -> list[str]:
    return [block.type for block in message.content]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("up", DIALECTS)
def test_loop_of_a_tool_keeps_its_thoughts(bench: Bench, up: str, stream: bool) -> None:
    turns: list[Any] = [{"role": "user", "content": "What is the weather?"}]
    bench.upstream.requests.clear()
    first = create(bench, stream, model=f"{up}1/m", messages=turns)
    assert kinds(first)[-2:] == ["text", "tool_use"] and first.stop_reason == "tool_use"
    assert first.id.startswith("msg_") and first.model == "m"
    call = first.content[-1]
    assert isinstance(call, anthropic.types.ToolUseBlock)
    assert (call.name, call.input) == ("weather", {"city": "Köln"})
    usage = first.usage
    assert usage.output_tokens == 20 and usage.input_tokens + (usage.cache_read_input_tokens or 0) == 100
    answer = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    turns += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [answer]}]
    second = create(bench, stream, model=f"{up}1/m", messages=turns)
    assert second.content[-1].type == "text" and second.content[-1].text == SCRIPT[1].text
    assert second.stop_reason == "end_turn"
    _, _, sent = bench.upstream.requests[-1]
    if up == MESSAGES:
        thought = {"type": "thinking", "thinking": SCRIPT[0].thoughts, "signature": "c2lnbmVk0"}
        assert sent["messages"][1]["content"][0] == thought
    elif up == CHAT and stream:  # the upstream's whole answers have no thoughts
        assert sent["messages"][1]["reasoning_content"] == SCRIPT[0].thoughts


def test_thoughts_of_another_family_are_dropped_and_named(bench: Bench) -> None:
    first = create(bench, True, model=f"{CHAT}1/m", messages=[{"role": "user", "content": "Hi"}])
    assert kinds(first)[0] == "thinking"
    turns: Any = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": first.content[:2]},
        {"role": "user", "content": "And?"},
    ]
    raw = bench.client.messages.with_raw_response.create(model=f"{MESSAGES}1/m", max_tokens=9, messages=turns)
    assert raw.headers["x-headgate-dropped"] == "messages.thinking"
    assert raw.parse().model_extra["headgate"]["dropped"] == ["messages.thinking"]  # type: ignore[index]
    assert [block["type"] for block in bench.upstream.requests[-1][2]["messages"][1]["content"]] == ["text"]


def test_members_that_a_chat_target_does_not_get_are_named(bench: Bench) -> None:
    raw = bench.client.messages.with_raw_response.create(
        model=f"{CHAT}1/m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}],
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        extra_query={"include_route_trace": "true"}, extra_body={"top_k": 3},
    )  # fmt: skip
    assert raw.headers["x-headgate-dropped"] == "cache_control, top_k"
    trace = raw.parse().model_extra["route_trace"]  # type: ignore[index]
    assert trace["dropped"] == ["cache_control", "top_k"]


@pytest.mark.parametrize("thoughts", [True, False], ids=["thinking", "text"])
@pytest.mark.parametrize(("first", "second"), CHAINS)
def test_stream_that_is_cut_after_any_event_goes_on(bench: Bench, first: str, second: str, thoughts: bool) -> None:
    """The second attempt says the same from the beginning: the client sees one message."""
    turns: Any = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "weather", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "sunny"}]},
    ]
    said = SCRIPT[1] if thoughts else Turn(SCRIPT[1].text)
    bench.upstream.script = (SCRIPT[0], said)
    try:
        for at in range(13 if thoughts else 8):
            bench.upstream.cut_after = at
            message = create(bench, True, model=f"{first}-{second}", messages=turns)
            texts = [block.text for block in message.content if block.type == "text"]
            assert texts == [said.text], at
            assert message.stop_reason == "end_turn" and message.usage.output_tokens > 0, at
    finally:
        bench.upstream.script = SCRIPT
        bench.upstream.cut_after = None


def test_query_and_headers_of_the_api(bench: Bench) -> None:
    bench.client.beta.messages.create(
        model=f"{MESSAGES}1/m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}], betas=["later-2030-01-01"],
        extra_headers={"anthropic-version": "2031-01-01", "anthropic-odd": "1", "x-other": "2"},
    )  # fmt: skip
    _, headers, _ = bench.upstream.requests[-1]
    assert headers["anthropic-beta"] == "later-2030-01-01" and headers["anthropic-version"] == "2031-01-01"
    assert headers["anthropic-odd"] == "1" and "x-other" not in headers
    bench.client.messages.create(model=f"{CHAT}1/m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])
    assert not [name for name in bench.upstream.requests[-1][1] if name.startswith("anthropic-")]


def test_tokens_are_counted(bench: Bench) -> None:
    question: Any = [{"role": "user", "content": "How many tokens are these?"}]
    closed = len([record for record in bench.plane.records() if isinstance(record, Closed)])
    bench.upstream.counts = 77
    raw = bench.client.messages.with_raw_response.count_tokens(model=f"{MESSAGES}1/m", messages=question)
    assert raw.headers["x-headgate-counted-by"] == "anthropic1" and raw.parse().input_tokens == 77
    path, _, sent = bench.upstream.requests[-1]
    assert path == "/v1/messages/count_tokens" and sent == {"model": "m", "messages": question}
    bench.upstream.counts = None
    for name in (MESSAGES, CHAT):
        raw = bench.client.messages.with_raw_response.count_tokens(model=f"{name}1/m", messages=question)
        assert raw.headers["x-headgate-counted-by"] == "estimate" and 5 < raw.parse().input_tokens < 40
    assert len([record for record in bench.plane.records() if isinstance(record, Closed)]) == closed
    with pytest.raises(anthropic.NotFoundError):
        bench.client.messages.count_tokens(model="nowhere/m", messages=question)
    with pytest.raises(anthropic.AuthenticationError):
        bench.client.with_options(api_key="sk-wrong").messages.count_tokens(model=f"{CHAT}1/m", messages=question)
    with pytest.raises(anthropic.BadRequestError):
        bench.client.messages.count_tokens(model=f"{CHAT}1/m", messages=[])


def test_models_are_listed(bench: Bench) -> None:
    every = [model.id for model in bench.client.models.list(limit=1000)]
    paged = [model.id for model in bench.client.models.list(limit=2)]  # the client asks for the following pages
    assert paged == every and len(every) == len(set(every)) > 2
    first = bench.client.models.list(limit=1).data[0]
    assert (first.type, first.display_name) == ("model", first.id) and first.created_at.year == 1970


def test_errors_have_the_sdks_classes(bench: Bench) -> None:
    question: Any = [{"role": "user", "content": "Hi"}]
    with pytest.raises(anthropic.AuthenticationError):
        bench.client.with_options(api_key="sk-wrong").messages.create(model="m", max_tokens=9, messages=question)
    with pytest.raises(anthropic.NotFoundError) as missing:
        bench.client.messages.create(model="nowhere/m", max_tokens=9, messages=question)
    assert missing.value.body["error"]["code"] == "model_not_found"  # type: ignore[index]


@pytest.mark.parametrize("path", ["/", "/api/hello"])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_agents_find_the_server(bench: Bench, method: str, path: str) -> None:
    assert httpx.request(method, bench.plane.url + path).status_code == 200


def test_stream_of_tools_is_json(bench: Bench) -> None:
    """Eager consumers read the input piece by piece."""
    pieces = ""
    with bench.client.messages.stream(
        model=f"{MESSAGES}1/m", max_tokens=9, tools=TOOLS, messages=[{"role": "user", "content": "Hi"}]
    ) as events:
        for event in events:
            if event.type == "input_json":
                pieces += event.partial_json
    assert json.loads(pieces) == {"city": "Köln"}
