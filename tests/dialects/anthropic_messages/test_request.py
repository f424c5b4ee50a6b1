"""Messages requests: as chat members, as an upstream of this API gets them, and there and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.dialects.anthropic_messages import request
from headgate.dialects.canonical import capped, continued
from headgate.dialects.openai_chat import request as chat
from headgate.errors import GatewayError
from headgate.model import Call, ModelRow, Price, Provider, Target, Timeouts

TOOL = {"name": "weather", "description": "Tells it.", "input_schema": {"type": "object", "properties": {"city": {}}}}
FUNCTION = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells it.", "parameters": TOOL["input_schema"]},
}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}
IMAGE_URL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}


def read(**members: Any) -> Call:
    body = {"model": "m", "max_tokens": 9, "messages": [user("Hi")], **members}
    return request.read(json.dumps({key: value for key, value in body.items() if value is not ...}).encode())


def members(call: Call) -> dict[str, Any]:
    return {key: json.loads(bytes(value)) for key, value in call.body.items()}


def render(call: Call, row: ModelRow | None = None) -> dict[str, Any]:
    target = Target(Provider("up", "http://up"), "m", "m-up", Price(), Timeouts(), row)
    rendered = request.render(call, target, ask_usage=True)
    assert rendered.path == "/messages" and rendered.fields == b"anthropic-version: 2023-06-01\r\n"
    found: dict[str, Any] = json.loads(rendered.body)
    assert found.pop("model") == "m-up"
    return found


def from_chat(messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return render(chat.read(json.dumps({"model": "m", "messages": messages, **more}).encode()))


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def tool_use(ident: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": ident, "name": "weather", "input": arguments}


def tool_call(ident: str, arguments: str) -> dict[str, Any]:
    return {"id": ident, "type": "function", "function": {"name": "weather", "arguments": arguments}}


def result(ident: str, content: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": ident, "content": content}


def tool(ident: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": ident, "content": content}


# ------------------------------------------------------------------------------------- from the client


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([user("Hi")], [user("Hi")]),
        ([user([text("Hi", cache_control={"type": "ephemeral"})])], [user("Hi")]),
        ([user([text("Hi"), text("you")])], [user([text("Hi"), text("you")])]),
        ([user([text("See"), IMAGE])], [user([text("See"), IMAGE_URL])]),
        ([user("a"), assistant("b"), user("c")], [user("a"), assistant("b"), user("c")]),
        ([user("a"), assistant([text("b"), text("c")])], [user("a"), assistant("bc")]),
        (
            [user("a"), assistant([{"type": "thinking", "thinking": "t", "signature": "s"}, tool_use("1", city="K")]),
             user([result("1", "sun"), text("And?")])],
            [user("a"), assistant(None, tool_calls=[tool_call("1", '{"city": "K"}')]), tool("1", "sun"), user("And?")],
        ),
        (
            [user([result("1", [text("a"), text("b"), IMAGE]), {"type": "tool_result", "tool_use_id": "2"}])],
            [tool("1", "a\n\nb"), tool("2", ""), user([IMAGE_URL])],
        ),
        ([user([{"type": "later", "x": 1}])], [user([{"type": "later", "x": 1}])]),
    ],
)  # fmt: skip
def test_messages_as_chat(given: list[Any], wanted: list[Any]) -> None:
    assert members(read(messages=given))["messages"] == wanted


@pytest.mark.parametrize("system", ["Be brief.\n\nBe kind.", [text("Be brief."), text("Be kind.")]])
def test_system_as_a_message(system: Any) -> None:
    assert members(read(system=system))["messages"][0] == {"role": "system", "content": "Be brief.\n\nBe kind."}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
        ({"metadata": {"user_id": "u1"}}, {"user": "u1"}),
        ({"tools": [TOOL]}, {"tools": [FUNCTION]}),
        ({"tool_choice": {"type": "auto"}}, {"tool_choice": "auto"}),
        ({"tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
         {"tool_choice": "required", "parallel_tool_calls": False}),
        ({"tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
        ({"tool_choice": {"type": "tool", "name": "f"}},
         {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}, "service_tier": "auto"}, {}),
    ],
)  # fmt: skip
def test_members_as_chat(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    plain = {"model": "m", "max_tokens": 9, "messages": [user("Hi")]}
    assert members(read(**given)) == plain | wanted


def test_call() -> None:
    call = read(stream=True, headgate={"timeout_ms": 5}, include_route_trace=True, tools=[TOOL])
    assert call.model == "m" and call.stream and call.include_usage and call.max_tokens == 9
    assert call.timeout_ms == 5 and call.trace
    assert call.native is not None and call.native.keys() == {"model", "max_tokens", "messages", "stream", "tools"}
    assert call.prompt.uses(("tools", "vision")) == ("tools",) and call.prompt.tokens > 0
    assert read(model=...).model is None and not read().include_usage


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"messages": ...}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
        ({"messages": [user("a"), user(5)]}, "messages[1].content"),
        ({"messages": [user([{"text": "a"}])]}, "messages[0].content[0].type"),
        ({"messages": [user([{"type": "text"}])]}, "messages[0].content[0].text"),
        ({"messages": [user([text("a"), result("1", [{}])])]}, "messages[0].content[1].content[0].type"),
        ({"system": 5}, "system"),
        ({"max_tokens": ...}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"model": 5}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stop_sequences": "a"}, "stop_sequences"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"headgate": {"what": 1}}, "headgate.what"),
        ({"include_route_trace": 1}, "include_route_trace"),
    ],
)
def test_faults_name_their_member(given: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as raised:
        read(**given)
    assert raised.value.kind.code == "invalid_value" and raised.value.param == param


# ------------------------------------------------------------------------------------- for the upstream


def test_own_members_pass_as_they_came() -> None:
    given = {
        "system": [text("Be brief.", cache_control={"type": "ephemeral"})],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "messages": [user("a"), assistant([{"type": "thinking", "thinking": "t", "signature": "s"}, text("b ")])],
        "later": [1, 2.50],
    }
    call = read(**given, headgate={"timeout_ms": 5})
    assert render(call) == {"max_tokens": 9, **given}
    assert render(capped(call, 4)) == {**given, "max_tokens": 4}
    changed = continued(call, "c", 2, "trailing")
    assert changed.native is None
    assert render(changed) == {
        "max_tokens": 7, "system": "Be brief.", "messages": [user("a"), assistant("b c")],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([user("a")], {"messages": [user("a")]}),
        ([{"role": "system", "content": "s"}, user("a"), {"role": "developer", "content": [text("t")]}],
         {"system": "s\n\nt", "messages": [user("a")]}),
        ([{"role": "system", "content": "s"}], {"messages": [user("s")]}),
        ([user("a"), user([text("b"), text("")])], {"messages": [user([text("a"), text("b")])]}),
        ([user([text("See"), IMAGE_URL])], {"messages": [user([text("See"), IMAGE])]}),
        ([user([{"type": "image_url", "image_url": {"url": "https://x/y.png"}}])],
         {"messages": [user([{"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}])]}),
        ([user("a"), assistant("b", tool_calls=[tool_call("1", '{"city": "K"}'), tool_call("2", "oops")]),
          tool("1", "sun"), tool("2", ""), user("And?")],
         {"messages": [user("a"), assistant([text("b"), tool_use("1", city="K"), tool_use("2")]),
                       user([result("1", "sun"), {"type": "tool_result", "tool_use_id": "2"}, text("And?")])]}),
        ([user("a"), assistant(None, refusal="no"), assistant("")], {"messages": [user("a")]}),
        ([user("a"), assistant("b \n")], {"messages": [user("a"), assistant("b")]}),
        ([user("a"), assistant("b"), assistant(" \n")], {"messages": [user("a"), assistant("b")]}),
        ([user("a"), assistant(" \n")], {"messages": [user("a")]}),
    ],
)  # fmt: skip
def test_messages_from_chat(given: list[Any], wanted: dict[str, Any]) -> None:
    assert from_chat(given) == {"max_tokens": 4096, **wanted}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6, "max_tokens": None}, {"max_tokens": 6}),
        ({"max_tokens": -1}, {}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["a", "b", ""]}, {"stop_sequences": ["a", "b"]}),
        ({"stop": None}, {}),
        ({"temperature": 0.50, "top_p": 0.9, "top_k": 4}, {"temperature": 0.5, "top_p": 0.9, "top_k": 4}),
        ({"temperature": 1.7}, {"temperature": 1}),
        ({"user": "u1"}, {"metadata": {"user_id": "u1"}}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
        ({"tools": [FUNCTION]}, {"tools": [TOOL]}),
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"},
         {"tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
          "tool_choice": {"type": "any"}}),
        ({"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
         {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "weather"}}),
        ({"tools": [FUNCTION], "tool_choice": "none", "parallel_tool_calls": False},
         {"tools": [TOOL], "tool_choice": {"type": "none"}}),
        ({"tools": [FUNCTION], "parallel_tool_calls": False},
         {"tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
        ({"tool_choice": "auto"}, {}),
        ({"n": 1, "logprobs": True, "seed": 4, "presence_penalty": 1, "response_format": {"type": "json_object"},
          "reasoning_effort": "low", "logit_bias": {}, "add_generation_prompt": False}, {}),
    ],
)  # fmt: skip
def test_members_from_chat(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert from_chat([user("Hi")], **given) == {"max_tokens": 4096, "messages": [user("Hi")], **wanted}


def test_row_sets_drops_and_renames() -> None:
    row = ModelRow(
        "m", max_output=8000, param_defaults={"temperature": b"0.2"}, param_drop=("top_k",), param_map={"top_p": "p"}
    )
    call = chat.read(json.dumps({"messages": [user("Hi")], "top_k": 4, "top_p": 0.5}).encode())
    assert render(call, row) == {"messages": [user("Hi")], "max_tokens": 8000, "temperature": 0.2, "p": 0.5}
    assert render(read(top_k=4), row) == {"messages": [user("Hi")], "max_tokens": 9, "temperature": 0.2}
    limited = ModelRow("m", max_output=8000, param_defaults={"max_tokens": b"100"})
    assert render(call, limited)["max_tokens"] == 100


@pytest.mark.parametrize(
    "given",
    [
        {"messages": [{"role": "system", "content": "s"}, user("a"), assistant("b"), user("c")]},
        {"messages": [user("a"), assistant(None, tool_calls=[tool_call("1", '{"city": "K"}')]), tool("1", "sun"),
                      user("And?")], "tools": [FUNCTION], "tool_choice": "auto"},
        {"messages": [user([text("See"), IMAGE_URL])], "stop": ["END"], "temperature": 0.5, "top_p": 0.25},
        {"messages": [user("a")], "user": "u1", "tools": [FUNCTION], "tool_choice": "required",
         "parallel_tool_calls": False},
    ],
)  # fmt: skip
def test_chat_request_comes_back_the_same(given: dict[str, Any]) -> None:
    given = {"max_tokens": 9, **given}
    there = from_chat(given["messages"], **{key: value for key, value in given.items() if key != "messages"})
    assert members(read(**there)) == {"model": "m", **given}
