"""The Gemini API: requests ⇄ chat completions, answers ⇄ deltas."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import errors
from headgate.dialects.base import (
    Delta,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    Reply,
    TextDelta,
    ToolDelta,
    ToolStart,
)
from headgate.dialects.gemini import from_chat, request
from headgate.dialects.gemini.dialect import BACKEND, CLIENT, GeminiCount
from headgate.dialects.gemini.errors import error_body
from headgate.dialects.gemini.face import GeminiFace
from headgate.dialects.gemini.source import GeminiSource
from headgate.dialects.registry import open_stream
from headgate.dialects.translation.composed import whole_answer
from headgate.errors import GatewayError
from headgate.model import Call, Price, PromptMessage, Provider, Target, Timeouts, Usage
from headgate.wire import codec
from headgate.wire.sse import Decoder

REPLY = Reply("gemini-0123456789abcdef01234567", 1_800_000_000, "target-model", True, provider="up", prompt_tokens=7)
USAGE = Usage(18, 15, 5, 0, 3, "provider")
HI = {"role": "user", "parts": [{"text": "Hi"}]}
CALL = {"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Köln"}}}
RESULT = {"functionResponse": {"id": "c1", "name": "weather", "response": {"output": "5 °C"}}}
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Köln"}'}}


def read(**members: Any) -> Call:
    body = json.dumps({"contents": [HI], **members}, ensure_ascii=False, separators=(",", ":")).encode()
    return request.read(body, "m", stream=False)


def chat(**members: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(codec.encode(read(**members).body))
    return found


def target(model: str = "gemini-2.5-flash") -> Target:
    timeouts = Timeouts(1, 1, 1, 1)
    return Target(Provider("g", "https://x/v1beta", dialect="gemini"), model, model, Price(0, 0), timeouts)


def gemini(model: str = "gemini-2.5-flash", **members: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    body = codec.decode_object(json.dumps({"messages": [{"role": "user", "content": "Hi"}], **members}).encode())
    found, lost = from_chat.members(body, target(model))
    return json.loads(codec.encode(found)), lost


# ------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize("name", ["systemInstruction", "system_instruction"])
def test_instructions_in_both_spellings(name: str) -> None:
    assert chat(**{name: {"parts": [{"text": "Be short."}]}})["messages"] == [
        {"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"},
    ]  # fmt: skip


def test_turns_of_an_agent() -> None:
    said = {"role": "model", "parts": [{"text": "Hm", "thought": True}, {"text": "I look."}, CALL]}
    call = read(contents=[HI, said, {"role": "user", "parts": [RESULT, {"text": "And?"}]}])
    found = json.loads(codec.encode(call.body))["messages"]
    assert found[1] == {"role": "assistant", "content": "I look.", "tool_calls": [CHAT_CALL]}
    assert found[2:] == [
        {"role": "tool", "tool_call_id": "c1", "content": "5 °C"}, {"role": "user", "content": "And?"},
    ]  # fmt: skip
    assert call.lost == ("contents.thought",)


def test_calls_without_ids_find_their_results() -> None:
    def call(name: str) -> dict[str, Any]:
        return {"functionCall": {"name": name, "args": {}}}

    def result(name: str, value: int) -> dict[str, Any]:
        return {"functionResponse": {"name": name, "response": {"value": value}}}

    found = chat(
        contents=[
            HI,
            {"role": "model", "parts": [call("f"), call("g"), call("f")]},
            {"role": "user", "parts": [result("g", 2), result("f", 1), result("f", 3)]},
        ]
    )["messages"]
    ids = [one["id"] for one in found[1]["tool_calls"]]
    assert len(set(ids)) == 3
    assert [(one["tool_call_id"], one["content"]) for one in found[2:]] == [
        (ids[1], '{"value":2}'), (ids[0], '{"value":1}'), (ids[2], '{"value":3}'),
    ]  # fmt: skip


def test_attachments() -> None:
    parts = [
        {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
        {"inline_data": {"mime_type": "audio/wav", "data": "BB=="}},
        {"inlineData": {"mimeType": "application/pdf", "data": "CC=="}},
        {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://x/y.jpg"}},
    ]
    image, sound, file, linked = chat(contents=[{"parts": parts}])["messages"][0]["content"]
    assert image["image_url"] == {"url": "data:image/png;base64,AA=="}
    assert sound["input_audio"] == {"data": "BB==", "format": "wav"}
    assert file["file"]["file_data"] == "data:application/pdf;base64,CC=="
    assert linked["image_url"] == {"url": "https://x/y.jpg"}


def test_parameters_tools_and_what_is_lost() -> None:
    schema = {"type": "OBJECT", "properties": {"n": {"type": "INTEGER", "nullable": True}}, "required": ["n"]}
    plain = {"type": "object", "properties": {"n": {"type": ["integer", "null"]}}, "required": ["n"]}
    call = read(
        generationConfig={
            "maxOutputTokens": 50, "stopSequences": ["x"], "topK": 4, "responseMimeType": "application/json",
            "responseSchema": schema, "thinkingConfig": {"thinkingBudget": 1024},
        },
        tools=[{"functionDeclarations": [{"name": "f", "parameters": schema}]}, {"googleSearch": {}}],
        toolConfig={"functionCallingConfig": {"mode": "ANY"}}, safetySettings=[],
    )  # fmt: skip
    found = json.loads(codec.encode(call.body))
    assert (found["max_tokens"], found["stop"], found["reasoning_effort"]) == (50, ["x"], "low")
    assert found["response_format"]["json_schema"]["schema"] == plain
    assert found["tools"] == [{"type": "function", "function": {"name": "f", "parameters": plain}}]
    assert found["tool_choice"] == "required" and call.max_tokens == 50
    assert set(call.lost) == {"safetySettings", "generationConfig.topK", "tools.googleSearch"}


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"contents": []}, "contents"),
        ({"contents": 3}, "contents"),
        ({"contents": [{"role": "user"}]}, "contents[0].parts"),
        ({"generationConfig": 3}, "generationConfig"),
        ({"generationConfig": {"maxOutputTokens": 0}}, "generationConfig.maxOutputTokens"),
        ({"tools": {}}, "tools"),
    ],
)
def test_invalid_requests_name_the_member(members: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as found:
        chat(**members)
    assert (found.value.kind.status, found.value.param) == (400, param)


def test_chat_becomes_gemini() -> None:
    conversation = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]},
        {"role": "assistant", "content": "I look.", "tool_calls": [CHAT_CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "5 °C"},
        {"role": "user", "content": "And?"},
    ]
    found, lost = gemini(
        messages=conversation, max_tokens=50, stop="x", n=2, logit_bias={"1": 2}, reasoning_effort="low",
        tools=[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    )  # fmt: skip
    assert lost == ("n", "logit_bias")
    assert found["systemInstruction"] == {"parts": [{"text": "Be short."}]}
    user, model, result = found["contents"]
    assert user == {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "AA=="}}]}
    called = {"functionCall": {"name": "weather", "args": {"city": "Köln"}}}
    assert model == {"role": "model", "parts": [{"text": "I look."}, called]}
    output = {"functionResponse": {"name": "weather", "response": {"output": "5 °C"}}}
    assert result == {"role": "user", "parts": [output, {"text": "And?"}]}
    assert found["generationConfig"] == {
        "maxOutputTokens": 50, "stopSequences": ["x"], "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object"}, "thinkingConfig": {"thinkingBudget": 1024, "includeThoughts": True},
    }  # fmt: skip
    calling = {"mode": "ANY", "allowedFunctionNames": ["weather"]}
    assert found["toolConfig"] == {"functionCallingConfig": calling}


def test_models_that_require_signatures_are_told_there_is_none() -> None:
    conversation = [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [CHAT_CALL, CHAT_CALL]}]
    found, _ = gemini("gemini-3-pro", messages=conversation, reasoning_effort="medium")
    first, second = found["contents"][1]["parts"]
    assert first["thoughtSignature"] == "skip_thought_signature_validator" and "thoughtSignature" not in second
    assert found["generationConfig"]["thinkingConfig"]["thinkingLevel"] == "medium"


def test_calls_of_other_models_get_a_signature_where_a_model_requires_one() -> None:
    mine = {"functionCall": {"name": "now"}, "thoughtSignature": "c2ln"}
    turns = [HI, {"role": "model", "parts": [CALL, CALL]}, HI, {"role": "model", "parts": [mine, CALL]}, HI]
    body = json.loads(request.render(read(contents=turns), target("gemini-3-pro"), False).body)
    given = {**CALL, "thoughtSignature": "skip_thought_signature_validator"}
    assert body["contents"] == [HI, {"role": "model", "parts": [given, CALL]}, *turns[2:]]
    assert json.loads(request.render(read(contents=turns), target(), False).body)["contents"] == turns


def test_paths_name_model_and_method() -> None:
    for root in (b"/v1beta/models/", b"/v1/models/", b"/models/"):
        assert request.parted(root + b"up/a%3Ab/c:streamGenerateContent") == ("up/a:b/c", "streamGenerateContent")
    client = CLIENT.begin(b"/v1beta/models/m:countTokens", b"")
    assert isinstance(client.counts, GeminiCount)
    for path, query in ((b"/v1beta/models/m:nothing", b""), (b"/v1beta/models/m:streamGenerateContent", b"")):
        with pytest.raises(GatewayError) as found:
            CLIENT.begin(path, query).read(b"{}")
        assert found.value.kind.status == 404


_TEXT = st.text(min_size=1, max_size=20)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "call"]), _TEXT), min_size=1, max_size=8))
def test_a_conversation_survives_both_ways(turns: list[tuple[str, str]]) -> None:
    conversation: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
    for i, (role, text) in enumerate(turns):
        if role == "call":
            function = {"name": "f", "arguments": json.dumps({"a": text}, ensure_ascii=False, separators=(",", ":"))}
            call = {"id": f"c{i}", "type": "function", "function": function}
            conversation.append({"role": "assistant", "content": f"t{i}", "tool_calls": [call]})
            conversation.append({"role": "tool", "tool_call_id": f"c{i}", "content": f"r{text}"})
        else:
            conversation.append({"role": role, "content": text})
    found, _ = gemini(messages=conversation)
    back = chat(contents=found["contents"])["messages"]
    assert [_said(one) for one in _merged(back)] == [_said(one) for one in _merged(conversation)]


def _said(message: dict[str, Any]) -> tuple[Any, ...]:
    calls = [one["function"]["arguments"] for one in message.get("tool_calls", ())]
    return message["role"], message["content"], calls


def _merged(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbours of one role as one message: contents of this API take turns."""
    found: list[dict[str, Any]] = []
    for message in messages:
        content = message["content"]
        text = content if isinstance(content, str) else "".join(part["text"] for part in content or ())
        last = found[-1] if found else {}
        if last.get("role") == message["role"] and message["role"] != "tool":
            last["content"] += text
            last["tool_calls"] = last.get("tool_calls", []) + message.get("tool_calls", [])
        else:
            found.append({**message, "content": text, "tool_calls": list(message.get("tool_calls", ()))})
    return found


# ------------------------------------------------------------------------------------- answers

ANSWER: list[Delta] = [
    ReasoningDelta("Let me "),
    ReasoningDelta("look."),
    TextDelta("I look 🌍."),
    ToolStart(0, "c1", "weather"),
    ToolDelta(0, '{"city":'),
    ToolStart(1, "c2", "now"),
    ToolDelta(0, '"Köln"}'),
]


def streamed(deltas: list[Delta], finish: Finish) -> bytes:
    face = GeminiFace(REPLY)
    return b"".join(face.put([one], "m-up") for one in deltas) + face.tail(finish, USAGE, None, None)


def source_of(data: bytes, size: int = 1 << 20) -> tuple[GeminiSource, list[Delta]]:
    source = GeminiSource(REPLY)
    deltas: list[Delta] = []
    for at in range(0, len(data), size):
        deltas += source.feed(data[at : at + size])
    deltas += source.close()
    return source, deltas


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_own_stream_is_read_back(size: int) -> None:
    source, deltas = source_of(streamed(ANSWER, Finish("tool_calls")), size)
    assert source.done and source.model == "m-up" and source.reported == USAGE
    assert deltas == [
        ReasoningDelta("Let me "), ReasoningDelta("look."), TextDelta("I look 🌍."),
        ToolStart(0, "c1", "weather"), ToolDelta(0, '{"city":"Köln"}'), ToolStart(1, "c2", "now"), ToolDelta(1, "{}"),
        Finish("tool_calls"),
    ]  # fmt: skip


def test_whole_answer() -> None:
    found = json.loads(GeminiFace(REPLY).whole([*ANSWER, Finish("tool_calls")], "m-up", USAGE, None, None))
    candidate = found["candidates"][0]
    assert candidate["finishReason"] == "STOP"
    assert candidate["content"]["parts"][0] == {"text": "Let me look.", "thought": True}
    source = GeminiSource(REPLY)
    deltas = source.whole(json.dumps(found).encode())
    assert source.done and deltas[-1] == Finish("tool_calls")


def test_what_only_this_api_has_reaches_its_clients() -> None:
    """Signatures of calls and texts, which later requests return, and parts of other kinds."""
    image = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    call = {"functionCall": {"id": "c1", "name": "weather", "args": {}}, "thoughtSignature": "c2ln"}
    parts = [{"text": "I draw.", "thoughtSignature": "dGV4dA=="}, image, call]
    body = {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}
    reply = Reply("gemini-1", 1, "m", provider="up")
    answer = whole_answer(GeminiSource(reply), GeminiFace(reply), json.dumps(body).encode(), reply)
    wanted = [{"text": "I draw."}, {"text": "", "thoughtSignature": "dGV4dA=="}, image, call]
    assert json.loads(answer.write(None, None))["candidates"][0]["content"]["parts"] == wanted
    stream = open_stream(CLIENT, BACKEND, reply)
    out = stream.feed(b"data: " + json.dumps(body).encode() + b"\n\n") + stream.close() + stream.tail(USAGE)
    events = [json.loads(event.data) for event in Decoder().feed(out)]
    assert [part for one in events for part in one["candidates"][0]["content"]["parts"]] == wanted


def test_a_signature_alone_is_a_hollow_answer() -> None:
    body = {"candidates": [{"content": {"parts": [{"text": "", "thoughtSignature": "c2ln"}]}, "finishReason": "STOP"}]}
    stream = open_stream(CLIENT, BACKEND, Reply("gemini-1", 1, "m", provider="up"))
    stream.feed(b"data: " + json.dumps(body).encode() + b"\n\n")
    stream.close()
    assert stream.error is not None and stream.error.kind is errors.UPSTREAM_HOLLOW


def test_refusals_are_text() -> None:
    found = json.loads(Decoder().feed(streamed([RefusalDelta("No.")], Finish("stop")))[0].data)
    assert found["candidates"][0]["content"]["parts"] == [{"text": "No."}]


@pytest.mark.parametrize(
    ("word", "finish"),
    [("STOP", Finish("stop")), ("MAX_TOKENS", Finish("length")), ("SAFETY", Finish("content_filter", "SAFETY"))],
)
def test_finish_reasons(word: str, finish: Finish) -> None:
    data = json.dumps({"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": word}]})
    source, deltas = source_of(f"data: {data}\n\n".encode())
    assert source.done and deltas == [TextDelta("a"), finish]


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ({"candidates": [{"content": {"parts": [{"text": "a"}]}}]}, errors.UPSTREAM_CUT),
        ({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}, None),
        ({"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL"}]}, None),
    ],
)
def test_failures(payload: dict[str, Any], kind: Any) -> None:
    source, _ = source_of(f"data: {json.dumps(payload)}\n\n".encode())
    assert source.error is not None and not source.done
    assert kind is None or source.error.kind is kind


def test_blocked_prompt_is_a_filtered_answer() -> None:
    source, deltas = source_of(b'data: {"promptFeedback":{"blockReason":"SAFETY"}}\n\n')
    assert source.done and deltas == [Finish("content_filter", "SAFETY")]


def test_errors_have_the_shape_of_the_api() -> None:
    found = json.loads(error_body(GatewayError(errors.INVALID_VALUE, "No.", param="contents")))["error"]
    assert (found["code"], found["status"], found["message"]) == (400, "INVALID_ARGUMENT", "No.")
    assert found["details"][0]["reason"] == "invalid_value" and found["details"][0]["metadata"]["param"] == "contents"


def test_saved_prompts_stand_first() -> None:
    call = read(systemInstruction={"parts": [{"text": "Mine."}]}, safetySettings=[])
    said = [PromptMessage("system", "Theirs."), PromptMessage("user", "A?"), PromptMessage("assistant", "B.")]
    found = CLIENT.with_prompt(call, said)
    assert found.native is not None
    native = json.loads(codec.encode(found.native))
    assert native["systemInstruction"]["parts"] == [{"text": "Theirs."}, {"text": "Mine."}]
    assert [one["parts"][0]["text"] for one in native["contents"]] == ["A?", "B.", "Hi"]
    assert native["contents"][1]["role"] == "model" and native["safetySettings"] == []
    messages = json.loads(codec.encode(found.body))["messages"]
    assert [one["content"] for one in messages] == ["Theirs.\n\nMine.", "A?", "B.", "Hi"]
