"""Responses requests ⇄ chat completions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.dialects.openai_responses import from_chat, to_chat
from headgate.dialects.openai_responses.request import ResponsesPrompt, read
from headgate.errors import GatewayError
from headgate.wire import codec

HI = {"role": "user", "content": "Hi"}
IMAGE = {"type": "image_url", "image_url": {"url": "u"}}
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Köln"}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "5 °C"}
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Köln"}'}}


def chat(**members: Any) -> dict[str, Any]:
    """The chat members of a request."""
    call = read(json.dumps({"model": "m", "input": "Hi", **members}).encode())
    found: dict[str, Any] = json.loads(codec.encode(call.body))
    return found


def responses(**members: Any) -> dict[str, Any]:
    body = codec.decode_object(json.dumps({"model": "m", "messages": [HI], **members}).encode())
    found: dict[str, Any] = json.loads(codec.encode(from_chat.members(body)))
    return found


def messages(*items: Any, **members: Any) -> Any:
    return chat(input=list(items), **members)["messages"]


def test_text_and_instructions() -> None:
    assert chat()["messages"] == [HI]
    assert chat(instructions="Be short.")["messages"] == [{"role": "system", "content": "Be short."}, HI]
    assert messages(HI, {"type": "message", "role": "developer", "content": "No."})[1]["role"] == "developer"


def test_parts() -> None:
    user = {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "See"},
            {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
        ],
    }
    text, image, file = messages(user)[0]["content"]
    assert text == {"type": "text", "text": "See"}
    assert image == {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}
    assert file == {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}}


def test_turn_of_an_agent_is_one_message() -> None:
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]}
    other = {**CALL, "call_id": "c2"}
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "xx"}
    found = messages(HI, thought, said, CALL, other, RESULT, {**RESULT, "call_id": "c2"}, HI)
    assert [message["role"] for message in found] == ["user", "assistant", "tool", "tool", "user"]
    assert found[1] == {"role": "assistant", "content": "I look.", "tool_calls": [CHAT_CALL, {**CHAT_CALL, "id": "c2"}]}
    assert found[2] == {"role": "tool", "tool_call_id": "c1", "content": "5 °C"}
    two = messages(HI, CALL, RESULT, other, {**RESULT, "call_id": "c2"})
    assert [message["role"] for message in two] == ["user", "assistant", "tool", "assistant", "tool"]
    assert [len(message.get("tool_calls", ())) for message in two] == [0, 1, 0, 1, 0]
    late = messages(HI, CALL, said, RESULT)
    assert [message["role"] for message in late] == ["user", "assistant", "tool"] and late[1]["content"] == "I look."


def test_result_with_an_image() -> None:
    parts = [{"type": "input_text", "text": "a shot"}, {"type": "input_image", "image_url": "https://x/y.png"}]
    found = messages(HI, CALL, {**RESULT, "output": parts})
    assert found[2]["content"] == "a shot"
    assert found[3] == {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}


def test_parameters() -> None:
    schema = {"type": "object", "properties": {}}
    found = chat(
        max_output_tokens=50, temperature=0.5, reasoning={"effort": "low", "summary": "auto"}, store=True,
        text={"verbosity": "low", "format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}},
        metadata={"a": "b"}, prompt_cache_key="k", include=["message.output_text.logprobs"], top_logprobs=3,
    )  # fmt: skip
    del found["messages"]
    assert found == {
        "model": "m", "max_tokens": 50, "temperature": 0.5, "reasoning_effort": "low", "verbosity": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}},
        "prompt_cache_key": "k", "logprobs": True, "top_logprobs": 3,
    }  # fmt: skip


def test_tools() -> None:
    function = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": False}
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: x"}
    custom = {"type": "custom", "name": "patch", "description": "Edit.", "format": grammar}
    inner = {"type": "function", "name": "g"}
    tools = [function, custom, {"type": "web_search"}, {"type": "namespace", "name": "ns", "tools": [inner]}]
    body = json.dumps({"model": "m", "input": "Hi", "tools": tools, "parallel_tool_calls": True}).encode()
    call = read(body)
    found = json.loads(codec.encode(call.body))
    names = [tool["function"]["name"] for tool in found["tools"]]
    assert names == ["f", "patch", "g"] and found["parallel_tool_calls"] is True
    assert found["tools"][0]["function"]["strict"] is False
    patch = found["tools"][1]["function"]
    assert patch["parameters"]["required"] == ["input"] and "start: x" in patch["description"]
    assert isinstance(call.prompt, ResponsesPrompt)
    assert call.prompt.special == {"patch": to_chat.Special(custom=True), "g": to_chat.Special(namespace="ns")}
    assert call.native is not None and to_chat.left_out(call.native) == ("tools.web_search",)
    assert "tools" not in chat(tools=[{"type": "web_search"}], tool_choice="auto", parallel_tool_calls=True)


def test_members_without_a_form_in_chat_are_named() -> None:
    """Those of a request of Codex, and others."""
    codex = {
        "client_metadata": {"session_id": "s"}, "reasoning": {"effort": "low", "summary": "auto"}, "store": False,
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs"], "prompt_cache_key": "k",
    }  # fmt: skip
    others = {"truncation": "disabled", "metadata": {"a": "b"}, "max_tool_calls": 3, "user": None}
    call = read(json.dumps({"model": "m", "input": "Hi", "presence_penalty": 1, **codex, **others}).encode())
    names = ("client_metadata", "max_tool_calls", "reasoning.summary", "include.reasoning.encrypted_content")
    assert call.lost == names and call.body["presence_penalty"] == codec.raw(1)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("required", "required"),
        ({"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "custom", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "web_search"}, None),
    ],
)
def test_tool_choice(choice: Any, expected: Any) -> None:
    assert chat(tools=[{"type": "function", "name": "f"}], tool_choice=choice).get("tool_choice") == expected


def test_allowed_tools_are_the_only_ones() -> None:
    tools = [{"type": "function", "name": name} for name in "fgh"]
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}
    found = chat(tools=tools, tool_choice=allowed)
    assert [tool["function"]["name"] for tool in found["tools"]] == ["g"] and found["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [3]}, "input"),
        ({"input": [{"type": "reasoning"}]}, "input"),
        ({"input": [{"role": "x", "content": "y"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": 3}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output"}]}, "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"instructions": 3}, "instructions"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"reasoning": "low"}, "reasoning"),
        ({"text": "low"}, "text"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": 3}, "tool_choice"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
    ],
)
def test_invalid_requests_name_the_member(members: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as found:
        chat(**members)
    assert (found.value.kind.status, found.value.param) == (400, param)


def test_chat_becomes_responses() -> None:
    conversation = [
        {"role": "system", "content": "Be short."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": "u"}}],
        },
        {"role": "assistant", "content": "I look.", "tool_calls": [CHAT_CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "5 °C"},
        {"role": "assistant", "content": None, "refusal": "No."},
    ]
    found = responses(
        messages=conversation, max_tokens=50, reasoning_effort="low", verbosity="high", stream=True,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
        tools=[{"type": "function", "function": {"name": "f"}}],
        tool_choice={"type": "function", "function": {"name": "f"}}, stream_options={"include_usage": True},
    )  # fmt: skip
    system, user, assistant, call, result, refusal = found.pop("input")
    assert system == {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be short."}]}
    assert user["content"][1] == {"type": "input_image", "image_url": "u"}
    assert assistant["content"] == [{"type": "output_text", "text": "I look."}]
    assert (call, result) == (CALL, RESULT)
    assert refusal["content"] == [{"type": "refusal", "refusal": "No."}]
    assert found == {
        "stream": True, "max_output_tokens": 50, "reasoning": {"effort": "low"},
        "text": {"verbosity": "high", "format": {"type": "json_schema", "name": "n", "schema": {}}},
        "tools": [
            {"type": "function", "name": "f", "strict": False, "parameters": {"type": "object", "properties": {}}}
        ],
        "tool_choice": {"type": "function", "name": "f"},
    }  # fmt: skip


def test_members_without_a_form_are_named() -> None:
    body = codec.decode_object(
        b'{"model":"m","messages":[],"stop":["x"],"n":1,"seed":7,"presence_penalty":0,"logit_bias":{},"user":"u",'
        b'"frequency_penalty":0.5,"logprobs":false}'
    )
    assert from_chat.left_out(body) == ("stop", "seed", "frequency_penalty")


_TEXT = st.text(max_size=20)
_TURN = st.one_of(
    st.tuples(st.sampled_from(["user", "system"]), _TEXT.filter(bool)),
    st.tuples(st.just("assistant"), _TEXT.filter(bool)),
    st.tuples(st.just("call"), _TEXT),
)


@given(st.lists(_TURN, min_size=1, max_size=8))
def test_a_conversation_survives_both_ways(turns: list[tuple[str, str]]) -> None:
    conversation: list[dict[str, Any]] = []
    for i, (role, text) in enumerate(turns):
        if role == "call":
            function = {"name": "f", "arguments": json.dumps({"a": text})}
            call = {"id": f"c{i}", "type": "function", "function": function}
            conversation.append({"role": "assistant", "content": f"t{i}", "tool_calls": [call]})
            conversation.append({"role": "tool", "tool_call_id": f"c{i}", "content": text})
        else:
            conversation.append({"role": role, "content": text})
    sent = responses(messages=conversation)
    assert chat(input=sent["input"])["messages"] == conversation
