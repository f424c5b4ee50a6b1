"""Messages requests: as chat members, as an upstream of this API gets them, and there and back."""

from __future__ import annotations

import hashlib
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

PDF = {
    "type": "document",
    "title": "a.pdf",
    "source": {"type": "base64", "media_type": "application/pdf", "data": "JV"},
}
PDF_FILE = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JV"}}
OUTPUT_FORMAT = {"type": "json_schema", "schema": {"type": "object"}}
SCHEMA_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
}
MARKER = {"cache_control": {"type": "ephemeral"}}


def read(**members: Any) -> Call:
    body = {"model": "m", "max_tokens": 9, "messages": [user("Hi")], **members}
    return request.read(json.dumps({key: value for key, value in body.items() if value is not ...}).encode())


def members(call: Call) -> dict[str, Any]:
    return {key: json.loads(bytes(value)) for key, value in call.body.items()}


def target(row: ModelRow | None = None, family: str = "anthropic", model: str = "m-up") -> Target:
    return Target(Provider("up", "http://up", preset=family), "m", model, Price(), Timeouts(), row)


def render(call: Call, row: ModelRow | None = None) -> dict[str, Any]:
    up = target(row)
    rendered = request.render(call, up, ask_usage=True)
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
        ([user([PDF])], [user([PDF_FILE])]),
        ([user([{"type": "document", "title": "T", "source": {"type": "text", "data": "said"}}])], [user("T\n\nsaid")]),
        ([user([{"type": "document", "source": {"type": "content", "content": [text("a"), IMAGE]}}])],
         [user([text("a"), IMAGE_URL])]),
        ([user([{"type": "search_result", "title": "T", "source": "S", "content": [text("a")]}])],
         [user("T\n\nS\n\na")]),
        ([user([{**result("1", "no such file"), "is_error": True}, {**result("2", "Error: x"), "is_error": True}])],
         [tool("1", "Error: no such file"), tool("2", "Error: x")]),
        ([user("a"), {"role": "system", "content": [text("b"), text("c")]}],
         [user("a"), {"role": "system", "content": "b\n\nc"}]),
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
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}, "service_tier": "auto"}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 9000}}, {"reasoning_effort": "medium"}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, {"reasoning_effort": "high"}),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, {}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        *(({name: form}, {"response_format": SCHEMA_FORMAT}) for name, form in (
            ("output_format", OUTPUT_FORMAT), ("output_config", {"format": OUTPUT_FORMAT}),
        )),
        ({"metadata": {"user_id": "u" * 65}}, {"user": hashlib.sha256(b"u" * 65).hexdigest()}),
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
        ([user([PDF_FILE])], {"messages": [user([PDF])]}),
        ([user([{"type": "file", "file": {"file_data": "https://x/y.pdf"}}])],
         {"messages": [user([{"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}}])]}),
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
          "reasoning_effort": "none", "logit_bias": {}, "add_generation_prompt": False}, {}),
        ({"reasoning_effort": "low", "temperature": 0.5}, {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        ({"reasoning_effort": "high", "max_tokens": 3000},
         {"max_tokens": 3000, "thinking": {"type": "enabled", "budget_tokens": 2999}}),
        ({"reasoning_effort": "high", "max_tokens": 1000}, {"max_tokens": 1000}),
        ({"response_format": SCHEMA_FORMAT}, {"output_config": {"format": OUTPUT_FORMAT}}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
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


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, ()),
        ({"top_k": 4, "later": 1, "nothing": None}, ("top_k", "later")),
        ({"context_management": {"edits": []}}, ("context_management",)),
        ({"system": [text("s", **MARKER)], "tools": [{**TOOL, **MARKER}]}, ("cache_control",)),
        ({"messages": [user([text("a", **MARKER)])]}, ("cache_control",)),
        ({"messages": [user("a"), assistant([text("b", citations=[{}]), IMAGE])]}, ("citations",)),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, ("reasoning_effort",)),
        ({"messages": [user("a"), assistant([{"type": "thinking", "thinking": "t", "signature": "s"}, text("b")])]},
         ("messages.thinking",)),
    ],
)  # fmt: skip
def test_what_a_chat_target_does_not_get_is_named(given: dict[str, Any], names: tuple[str, ...]) -> None:
    call = read(**given)
    assert chat.render(call, target(), ask_usage=False).dropped == names
    assert request.render(call, target(), ask_usage=False).dropped == ()


def test_effort_goes_to_a_model_that_reasons() -> None:
    rendered = chat.render(
        read(thinking={"type": "adaptive"}, output_config={"effort": "low"}),
        target(ModelRow("m", capabilities=("tools", "reasoning"))), ask_usage=False,
    )  # fmt: skip
    assert rendered.dropped == () and json.loads(rendered.body)["reasoning_effort"] == "low"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"n": 1, "logprobs": False, "stream_options": {"include_usage": True}}, ()),
        ({"n": 2, "seed": 4, "response_format": {"type": "json_object"}}, ("n", "seed", "response_format")),
        ({"reasoning_effort": "high", "tools": [FUNCTION], "tool_choice": "required"}, ("reasoning_effort",)),
        ({"reasoning_effort": "high", "temperature": 0.5, "top_k": 3}, ("temperature", "top_k")),
        ({"service_tier": "flex"}, ("service_tier",)),
    ],
)
def test_what_a_messages_target_does_not_get_is_named(given: dict[str, Any], names: tuple[str, ...]) -> None:
    call = chat.read(json.dumps({"model": "m", "messages": [user("Hi")], **given}).encode())
    assert request.render(call, target(), ask_usage=False).dropped == names


@pytest.mark.parametrize(
    ("model", "temperature", "kept"),
    [
        ("claude-3-5-sonnet-20241022", 0.5, {"temperature": 0.5, "top_p": 0.9}),
        ("claude-sonnet-4-20250514", 0.5, {"temperature": 0.5, "top_p": 0.9}),
        ("claude-opus-4-1-20250805", 0.5, {"temperature": 0.5}),
        ("anthropic/claude-haiku-4.5", 0.5, {"temperature": 0.5}),
        ("claude-sonnet-4-5", 1, {"top_p": 0.9}),
    ],
)
def test_models_that_take_one_sampler_get_one(model: str, temperature: float, kept: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [user("Hi")], "temperature": temperature, "top_p": 0.9}
    rendered = request.render(chat.read(json.dumps(body).encode()), target(model=model), ask_usage=False)
    found = json.loads(rendered.body)
    assert {name: found[name] for name in ("temperature", "top_p") if name in found} == kept
    assert rendered.dropped == (("top_p",) if kept == {"temperature": 0.5} else ())


def test_marks_of_the_prompt_cache_stay_where_a_chat_client_set_them() -> None:
    """On parts, as most clients write them, and on whole messages and calls, as opencode does."""
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}, **MARKER}
    given = [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "Be kind.", **MARKER},
        user([text("a", **MARKER), text("b")]),
        {"role": "assistant", "content": "I look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "5", **MARKER},
    ]
    found = from_chat(given, tools=[{**FUNCTION, **MARKER}])
    assert found["system"] == [text("Be brief."), text("Be kind.", **MARKER)]
    assert found["tools"] == [{**TOOL, **MARKER}]
    asked, answered, result = found["messages"]
    assert asked == user([text("a", **MARKER), text("b")])
    assert answered["content"][1] == {"type": "tool_use", "id": "c1", "name": "weather", "input": {}, **MARKER}
    assert result["content"] == [{"type": "tool_result", "tool_use_id": "c1", "content": "5", **MARKER}]
    assert from_chat([user("Hi") | MARKER])["messages"] == [user([text("Hi", **MARKER)])]


def test_newer_models_choose_their_budget() -> None:
    call = chat.read(json.dumps({"messages": [user("Hi")], "reasoning_effort": "medium"}).encode())
    for model in ("claude-sonnet-4-6", "claude-opus-5", "anthropic/claude-opus-4.7", "claude-haiku-4-10"):
        found = json.loads(request.render(call, target(model=model), ask_usage=False).body)
        assert (found["thinking"], found["output_config"]) == ({"type": "adaptive"}, {"effort": "medium"}), model
    for model in ("claude-sonnet-4-5-20250929", "claude-opus-4-20250514", "claude-3-7-sonnet-20250219", "glm-4.6"):
        found = json.loads(request.render(call, target(model=model), ask_usage=False).body)
        assert found["thinking"]["type"] == "enabled", model


@pytest.mark.parametrize(("model", "thinks"), [("claude-sonnet-4-6", True), ("claude-sonnet-4-5", False)])
def test_budget_is_not_asked_for_behind_a_tool_whose_turn_lacks_its_reasoning(model: str, thinks: bool) -> None:
    turns = [user("a"), assistant(None, tool_calls=[tool_call("1", "{}")]), tool("1", "sun")]
    call = chat.read(json.dumps({"messages": turns, "reasoning_effort": "high"}).encode())
    rendered = request.render(call, target(model=model), ask_usage=False)
    assert (b'"thinking"' in rendered.body) == thinks
    assert rendered.dropped == (() if thinks else ("reasoning_effort",))


def thinking(signature: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": "t", "signature": signature}


@pytest.mark.parametrize(
    ("family", "signature", "own"),
    [
        ("anthropic", "sig", "sig"),
        ("anthropic", "hg1:zai:sig", None),
        ("anthropic", "", ""),
        ("zai", "hg1:zai:sig", "sig"),
        ("zai", "sig", None),
        ("zai", "hg1:moonshot:sig", None),
        ("zai", "hg1:zai:", None),
    ],
)
def test_signatures_go_back_to_their_makers(family: str, signature: str, own: str | None) -> None:
    call = read(messages=[user("a"), assistant([thinking(signature), text("b")]), user("c")], tools=[TOOL])
    rendered = request.render(call, target(family=family), ask_usage=False)
    left = [text("b")] if own is None else [thinking(own), text("b")]
    assert json.loads(rendered.body)["messages"][1]["content"] == left
    assert rendered.dropped == (() if own is not None else ("messages.thinking",))


def test_tool_turn_without_its_reasoning_is_asked_without_thinking() -> None:
    turns = [user("a"), assistant([thinking("hg1:zai:s"), tool_use("1")]), user([result("1", "sun")])]
    call = read(messages=turns, thinking={"type": "enabled", "budget_tokens": 1024})
    rendered = request.render(call, target(), ask_usage=False)
    assert "thinking" not in json.loads(rendered.body) and rendered.dropped == ("messages.thinking", "thinking")


def test_reasoning_goes_back_to_the_chat_provider_that_made_it() -> None:
    turns = [user("a"), assistant([thinking("hg1:deepseek:"), tool_use("1")]), user([result("1", "sun")])]
    call = read(messages=turns)
    rendered = chat.render(call, target(family="deepseek"), ask_usage=False)
    assert json.loads(rendered.body)["messages"][1]["reasoning_content"] == "t" and rendered.dropped == ()
    rendered = chat.render(call, target(family="groq"), ask_usage=False)
    assert b"reasoning_content" not in rendered.body and rendered.dropped == ("messages.thinking",)
