"""Nothing of a stream is lost in silence: odd frames, foreign words, extras, halves of characters, torn calls."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.dialects.base import Reply
from headgate.dialects.openai_chat import ChatStream, answer
from headgate.dialects.openai_chat.prompt import ChatPrompt
from headgate.wire import codec
from tests.dialects.openai_chat.streams import bytewise, chunk, events, parse, run

ROLE = chunk({"role": "assistant", "content": ""})
ONE, TWO = chunk({"content": "Hel"}), chunk({"content": "lo"})
STOP = chunk({}, "stop")
USAGE = {**chunk({}), "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}
CALL = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"p":"'}}]}
REST = {"tool_calls": [{"index": 0, "function": {"arguments": 'x"}'}}]}


def text(out: bytes, key: str = "content") -> str:
    return "".join(choice["delta"].get(key) or "" for one in parse(out) for choice in one.get("choices", ()))


def members(out: bytes) -> dict[str, Any]:
    """Everything that stands in the chunks, in their choices and in their deltas, by name."""
    found: dict[str, Any] = {}
    for one in parse(out):
        found |= one
        for choice in one.get("choices", ()):
            found |= choice | choice["delta"]
    return found


# ------------------------------------------------------------------------------------- frames

A, B, C = (json.dumps(one) for one in (ONE, TWO, STOP))
PRETTY = ["\ndata: ".join(json.dumps(one, indent=1).split("\n")) for one in (ONE, TWO, STOP)]
FRAMES = {
    "single line feeds": f"data: {A}\ndata: {B}\ndata: {C}\ndata: [DONE]\n",
    "single line ends of both": f"data: {A}\r\ndata: {B}\r\ndata: {C}\r\ndata: [DONE]\r\n",
    "single carriage returns": f"data: {A}\rdata: {B}\rdata: {C}\rdata: [DONE]\r",
    "two payloads, then a blank line": f"data: {A}\ndata: {B}\n\ndata: {C}\n\ndata: [DONE]\n\n",
    "done in the same event": f"data: {A}\n\ndata: {B}\n\ndata: {C}\ndata: [DONE]\n\n",
    "fields and comments between": f": hi\nid: 1\ndata:{A}\n: ping\nevent: message\nid: 2\ndata:{B}\ndata:{C}\n\n",
    "empty data between": f"data: {A}\ndata:\ndata: {B}\ndata:\n\ndata: {C}\n\ndata: [DONE]\n\n",
    "one line for two": f"data: {A}data: {B}\n\ndata: {C}data: [DONE]\n\n",
    "one behind the other": f"data: {A}{B}\n\ndata: {C} [DONE]\n\n",
    "spaces between": f"data: {A}  {B}\n\ndata: {C}\n\n",
    "pretty JSON": "".join(f"data: {one}\n\n" for one in PRETTY),
    "pretty JSON without blank lines": "".join(f"data: {one}\n" for one in PRETTY),
    "a prefix twice": f"data: data: {A}\n\ndata: data: {B}\n\ndata: data: {C}\n\ndata: data: [DONE]\n\n",
    "lines without a prefix": f"{A}\n{B}\n{C}\n",
    "lines without a prefix, and blank ones": f"{A}\n\n{B}\n\n{C}\n\n",
    "a line without a prefix in the middle": f"data: {A}\n\n{B}\n\ndata: {C}\n\ndata: [DONE]\n\n",
    "lines without a prefix behind one with it": f"data: {A}\n{B}\n{C}\ndata: [DONE]\n\n",
    "indented by a blank": f" data: {A}\n\n data: {B}\n\n data: {C}\n\n data: [DONE]\n\n",
    "indented by tabs": f"\tdata: {A}\r\n\r\n\t\tdata: {B}\r\n\r\n\tdata:{C}\r\n\r\n\tdata: [DONE]\r\n\r\n",
    "indented from the second on": f"data: {A}\n\n  data: {B}\n\n  data: {C}\n\n  data: [DONE]\n\n",
    "indented, without blank lines": f"  data: {A}\n  data: {B}\n  data: {C}\n  data: [DONE]\n",
    "indented, blank lines as well": f"  data: {A}\n  \n  data: {B}\n  \n  data: {C}\n  \n  data: [DONE]\n  \n",
    "indented, with other fields": f"  : hi\n  id: 1\n  event: message\n  data: {A}\n\n  data: {B}\n\n  data: {C}\n\n",
    "indented lines without a prefix": f"  {A}\n  {B}\n  {C}\n",
    "done as a string": f'data: {A}\n\ndata: {B}\n\ndata: {C}\n\ndata: "[DONE]"\n\n',
}


@pytest.mark.parametrize("body", FRAMES.values(), ids=list(FRAMES))
def test_payloads_are_found_however_they_are_framed(body: str) -> None:
    data = body.encode()
    out, stream = run([data])
    assert (text(out), stream.error, stream.skipped, out[-8:]) == ("Hello", None, 0, b"[DONE]\n\n")
    assert out == run(bytewise(data))[0]


def test_payloads_without_blank_lines_do_not_wait_for_the_end() -> None:
    stream = ChatStream(Reply("x", 1, "m", False))
    got = [stream.feed(f"data: {one}\n".encode()) for one in (A, B, A, B)]
    assert [text(piece) for piece in got] == ["", "Hello", "Hel", "lo"]


def test_an_error_without_a_blank_line_before_it_is_one() -> None:
    _, stream = run([f'data: {A}\nevent: error\ndata: {{"message":"boom"}}\n\n'.encode()])
    assert stream.error is not None and "boom" in stream.error.message


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n\r\n", "\n\ndata: [DONE]\n\n"])
@pytest.mark.parametrize("gap", ["\n\n", "\n"])
def test_an_error_without_data_before_it_is_one(gap: str, end: str) -> None:
    body = f'data: {A}\n\ndata: {B}{gap}{{"error": {{"message": "boom", "code": 503}}}}{end}'.encode()
    for pieces in ([body], bytewise(body)):
        out, stream = run(pieces)
        assert stream.error is not None and "boom" in stream.error.message
        assert text(out) == "Hello" and b"[DONE]" not in out


@pytest.mark.parametrize("bad", ["oops", A[:40], "{}}", "[1]", '"what"'])
def test_a_line_that_cannot_be_read_costs_itself_alone(bad: str) -> None:
    for data in (
        f"data: {A}\ndata: {bad}\ndata: {B}\ndata: {C}\n\n",
        f"data: {A}\n\ndata: {bad}\n\ndata: {B}\n\ndata: {C}\n\n",
    ):
        out, stream = run([data.encode()])
        assert (text(out), stream.error, stream.skipped) == ("Hello", None, 1)


# ------------------------------------------------------------------------------------- words of other languages


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "nan", "inf", "-inf", "None", "undefined"])
def test_words_that_are_no_json_are_null(word: str) -> None:
    odd = (
        '{"choices":[{"index":0,"delta":{"content":"NaN None \\" WORD "},'
        '"logprobs":{"content":[{"token":"a","logprob":WORD}]},"finish_reason":null}]}'
    ).replace("WORD", word)
    out, stream = run([events(ROLE, odd, STOP, "[DONE]")])
    assert (text(out), stream.skipped) == (f'NaN None " {word} ', 0)
    assert members(out)["logprobs"] == {"content": [{"token": "a", "logprob": None}]}
    both, stream = run([events(ROLE, odd + odd, STOP)])
    assert text(both) == f'NaN None " {word} ' * 2 and stream.skipped == 0


def test_words_in_a_calls_arguments_are_null() -> None:
    odd = (
        '{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":%s}}]}}]}'
    )
    out, _ = run([events(odd % '{"x":NaN,"s":"NaN"}', STOP)])
    (call,) = members(out)["tool_calls"]
    assert call["function"]["arguments"] == '{"x":null,"s":"NaN"}'


# ------------------------------------------------------------------------------------- messages and bare texts


def with_choice(finish: str | None = None, **choice: Any) -> dict[str, Any]:
    return {**chunk({}), "choices": [{"index": 0, **choice, "finish_reason": finish}]}


WHOLE_CALL = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
INSTEAD = {
    "a list of one chunk": [f"[{json.dumps(one)}]" for one in (ROLE, ONE, TWO, STOP)],
    "a list of all chunks": [json.dumps([ROLE, ONE, TWO, STOP])],
    "chunks with commas between": [f"{json.dumps(ONE)},{json.dumps(TWO)} , {json.dumps(STOP)}"],
    "content as parts": [chunk({"content": [{"type": "text", "text": "Hel"}, {"text": "lo"}]}), STOP],
    "content as one part": [chunk({"content": {"type": "text", "text": "Hello"}}), STOP],
    "content as strings": [chunk({"content": ["Hel", "lo"]}), STOP],
    "content as nothing": [ONE, chunk({"content": []}), chunk({"content": {}}), TWO, STOP],
    "the whole again": [ONE, TWO, with_choice("stop", message={"role": "assistant", "content": "Hello"})],
    "the whole again, and null": [ONE, TWO, with_choice("stop", message={"content": "Hello"}, delta=None)],
    "the whole again, then the end": [ONE, TWO, with_choice(None, message={"content": "Hello"}), STOP],
    "messages for deltas": [
        with_choice(message={"role": "assistant", "content": ""}),
        with_choice(message={"content": "Hel"}),
        with_choice(message={"content": "lo"}),
        STOP,
    ],
    "one message": [ROLE, with_choice("stop", message={"role": "assistant", "content": "Hello"})],
    "texts for deltas": [with_choice(text="Hel"), with_choice(text="lo"), with_choice("stop", text="")],
    "texts behind a role": [ROLE, with_choice(text="Hel", delta=None), with_choice(text="lo"), STOP],
}


@pytest.mark.parametrize("body", INSTEAD.values(), ids=list(INSTEAD))
def test_what_stands_for_a_delta_is_read_once(body: list[Any]) -> None:
    for end in ([], ["[DONE]"]):
        out, stream = run([events(*body, *end)])
        assert (text(out), stream.error) == ("Hello", None) and out.replace(b": ", b":").count(b':"stop"') == 1


@pytest.mark.parametrize(("content", "expected"), [(42, "42"), (True, "true"), (1.5, "1.5"), ([1, None], "1")])
def test_content_that_is_no_text_is_read_as_one(content: Any, expected: str) -> None:
    out, _ = run([events(ROLE, chunk({"content": content}), STOP, "[DONE]")])
    assert text(out) == expected
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]}
    (choice,) = json.loads(answer(json.dumps(body).encode(), Reply(ident="x", created=1, model="m")).write(None, None))[
        "choices"
    ]
    assert choice["message"]["content"] == expected


def test_a_last_message_adds_what_was_not_streamed() -> None:
    message = {"role": "assistant", "content": "Hello", "tool_calls": WHOLE_CALL, "annotations": [{"type": "x"}]}
    out, stream = run([events(ONE, TWO, with_choice("tool_calls", message=message), "[DONE]")])
    assert stream.error is None and text(out) == "Hello" and out.count(b'"f"') == 1
    assert members(out)["annotations"] == message["annotations"]


# ------------------------------------------------------------------------------------- torn calls

UNREADABLE = {
    "the middle of a call": [ROLE, chunk(CALL), '{"choices":[{"delta":{"tool_calls":[{"index":0,"fun', chunk(REST)],
    "all of a call": [
        ROLE,
        ONE,
        '{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f}}]}}]}',
    ],
    "a call of the old kind": [ROLE, ONE, '{"choices":[{"delta":{"function_call":{"arguments":"x\\q"}}}]}'],
    "something that a call lacks then": [
        ROLE,
        chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"p":'}}]}),
        '{"cho',
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "1,2}"}}]}),
    ],
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=list(UNREADABLE))
@pytest.mark.parametrize("end", [[chunk({}, "tool_calls"), "[DONE]"], [chunk({}, "tool_calls")], ["[DONE]"]])
def test_a_torn_call_is_no_success(body: list[Any], end: list[Any]) -> None:
    out, stream = run([events(*body, *end)])
    assert stream.error is not None and "tool call" in stream.error.message and stream.skipped == 1
    assert b"[DONE]" not in out and b'"finish_reason":"tool_calls"' not in out


def test_what_cannot_be_read_beside_a_sound_call_is_skipped() -> None:
    plain = '{"choices":[{"index":0,"delta":{"content":"\\q","tool_calls":null},"finish_reason":"tool_calls"}]}'
    out, stream = run([events(ROLE, chunk(CALL), chunk(REST), plain, chunk({}, "tool_calls"), "[DONE]")])
    assert (stream.error, stream.skipped) == (None, 1) and out.endswith(b"[DONE]\n\n")


def test_bad_arguments_of_the_models_own_are_passed_on() -> None:
    out, stream = run([events(ROLE, chunk(CALL), chunk({}, "tool_calls"), "[DONE]")])
    assert (stream.error, stream.skipped) == (None, 0) and out.endswith(b"[DONE]\n\n")


# ------------------------------------------------------------------------------------- failures inside a chunk

ERROR = {"code": 502, "message": "Network connection lost."}
FAILURES = {
    "in the choice": {**chunk({}), "choices": [{"index": 0, "delta": {}, "finish_reason": None, "error": ERROR}]},
    "in the choice, with text": {**chunk({}), "choices": [{"index": 0, "delta": {"content": "x"}, "error": ERROR}]},
    "in the choice, with an end": {
        **chunk({}),
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "error": ERROR}],
    },
    "in the delta": chunk({"error": ERROR}),
    "under x_groq": {**chunk({}), "choices": [], "x_groq": {"id": "r", "error": "Network connection lost."}},
    "under x_groq, with choices": chunk({}, "stop", x_groq={"error": ERROR}),
    "beside the choices": {**chunk({}, "error"), "error": ERROR},
    "as a list": f"[{json.dumps({'error': ERROR})}]",
    "as a text": "Error: Network connection lost.",
    "as the name of an exception": "torch.cuda.OutOfMemoryError: Network connection lost.",
    "as a traceback": "Traceback (most recent call last): RuntimeError: Network connection lost.",
    "as a text on memory": "CUDA out of memory. Network connection lost.",
    "under base_resp": {"choices": None, "base_resp": {"status_code": 1013, "status_msg": "Network connection lost."}},
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=list(FAILURES))
def test_a_failure_inside_a_chunk_is_one(failure: Any) -> None:
    out, stream = run([events(ROLE, ONE, failure, "[DONE]")])
    assert stream.error is not None and "Network connection lost." in stream.error.message
    assert text(out) == "Hel" and b"[DONE]" not in out and b'"stop"' not in out


NO_ERRORS = [
    None, {}, "", False, [], {"code": 0, "message": ""}, {"message": None, "type": None, "code": 200},
    {"code": "0", "message": "success"},
]  # fmt: skip


@pytest.mark.parametrize("nothing", NO_ERRORS)
def test_an_empty_error_is_none(nothing: Any) -> None:
    choice = {"index": 0, "delta": {"content": "lo"}, "finish_reason": None, "error": nothing}
    out, stream = run([events(ROLE, ONE, {**chunk({}), "choices": [choice]}, STOP, "[DONE]")])
    assert (text(out), stream.error) == ("Hello", None)
    out, stream = run([events(ROLE, ONE, chunk({"content": "lo", "error": nothing}), STOP, "[DONE]")])
    assert (text(out), stream.error) == ("Hello", None)


# ------------------------------------------------------------------------------------- extras

VERDICT = {"hate": {"filtered": True}}
BEFORE = {
    "reasoning_text": (
        [chunk({"role": "assistant", "reasoning_text": "let "}), chunk({"reasoning_text": "me"})],
        "let me",
    ),
    "signature": ([chunk({"role": "assistant", "signature": "s"})], "s"),
    "thinking": ([ROLE, chunk({"thinking": "a"}), chunk({"thinking": "b"}), chunk({"thinking": "c"})], "abc"),
}


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("first", [{"content": "Hi"}, {**CALL}], ids=["text", "a call"])
def test_extras_before_the_first_text_are_kept_in_their_order(name: str, first: dict[str, Any]) -> None:
    before, expected = BEFORE[name]
    out, _ = run([events(*before, chunk(first), STOP, "[DONE]")])
    assert text(out, name) == expected
    assert parse(out)[0]["choices"][0]["delta"]["role"] == "assistant"


BEHIND = {
    "in the delta": (chunk({"content": "", "reasoning_items": [{"encrypted_content": "A"}]}), "reasoning_items"),
    "in the choice": (
        {"id": "", "object": "", "choices": [{"index": 0, "finish_reason": None, "content_filter_results": VERDICT}]},
        "content_filter_results",
    ),
    "with a second end": (chunk({"annotations": [1]}, "stop"), "annotations"),
    "without choices": ({**chunk({}), "choices": [], "moderation": {"flagged": False}}, "moderation"),
    "with null for choices": ({**chunk({}), "choices": None, "citations": ["u"]}, "citations"),
    "alone": ({"citations": ["u"]}, "citations"),
}


@pytest.mark.parametrize("usage", [True, False])
@pytest.mark.parametrize("late", [False, True], ids=["before the usage", "behind the usage"])
@pytest.mark.parametrize(("extra", "name"), BEHIND.values(), ids=list(BEHIND))
def test_extras_behind_the_end_are_kept(extra: Any, name: str, late: bool, usage: bool) -> None:
    tail = [USAGE, extra] if late else [extra, USAGE]
    out, stream = run([events(ROLE, ONE, TWO, STOP, *tail, "[DONE]")], usage=usage)
    assert members(out)[name] and stream.error is None and text(out) == "Hello"
    chunks = parse(out)
    assert [one["choices"][0]["finish_reason"] for one in chunks if one["choices"]].count("stop") == 1
    assert all(one["choices"] for one in chunks[: -1 if usage else None])


def test_extras_of_an_end_that_was_none_are_kept() -> None:
    out, _ = run([events(ROLE, ONE, chunk({"annotations": [1]}, "stop"), TWO, STOP, "[DONE]")])
    assert text(out) == "Hello" and members(out)["annotations"] == [1] and out.count(b'"stop"') == 1


# ------------------------------------------------------------------------------------- the role, and halves


@pytest.mark.parametrize(
    ("first", "content"),
    [({"content": "x"}, ""), ({"refusal": "x"}, ""), (CALL, None), ({"reasoning_content": "x"}, None)],
)
def test_the_role_has_null_for_content_where_no_text_follows(first: dict[str, Any], content: str | None) -> None:
    out, _ = run([events(ROLE, chunk(first), chunk({"content": "y"}), STOP, "[DONE]")])
    assert parse(out)[0]["choices"][0]["delta"] == {"role": "assistant", "content": content}


HALVES = {
    "two deltas": (["a\ud83d", "\ude00b"], "a😀b"),
    "behind known chunks": ([*"abcdef", "\ud83d", "\ude00", *"gh"], "abcdef😀gh"),
    "with an empty one between": (["\ud83d", "", "\ude00"], "😀"),
    "the second half never comes": ([*"abcdef", "\ud83d", *"gh"], "abcdef\ufffdgh"),
    "at the end": (["a\ud83d"], "a\ufffd"),
    "the first half never came": (["\ude00b"], "\ufffdb"),
    "two first halves": (["\ud83d", "\ud83d", "\ude00"], "\ufffd😀"),
    "a backslash before it": (["\\ud83d", "x"], "\\ud83dx"),
}


@pytest.mark.parametrize("key", ["content", "reasoning_content"])
@pytest.mark.parametrize(("pieces", "expected"), HALVES.values(), ids=list(HALVES))
@pytest.mark.parametrize("raw", [False, True], ids=["escaped", "as bytes"])
def test_halves_of_a_character_are_joined(pieces: list[str], expected: str, key: str, raw: bool) -> None:
    chunks = [json.dumps(chunk({key: piece}), ensure_ascii=not raw) for piece in pieces]
    end = [chunk({"content": "."}), STOP] if key != "content" else [STOP]
    body = "".join(f"data: {one}\n\n" for one in [*chunks, *map(json.dumps, end)]).encode("utf-8", "surrogatepass")
    out, stream = run([body])
    assert out.decode() and text(out, key) == expected and stream.skipped == 0
    assert text(run(bytewise(body))[0], key) == expected


def test_a_half_leaves_nothing_unreadable_anywhere() -> None:
    odd = {**chunk({"content": "\ud83d"}), "x": "\ude00"}
    odd["choices"][0]["logprobs"] = {"content": [{"token": "\ud83d"}]}
    for before in ([], [ROLE, ONE]):
        out, _ = run([events(*before, odd, chunk({"content": "\ude00"}), STOP, "[DONE]")])
        out.decode()
        assert not any("\ud800" <= letter <= "\udfff" for letter in json.dumps(parse(out), ensure_ascii=False))
        assert text(out).endswith("😀")


# ------------------------------------------------------------------------------------- nothing, behind a tool's result


def asked(role: str) -> ChatPrompt:
    messages = codec.raw([{"role": "user", "content": "x"}, {"role": role, "content": "5", "tool_call_id": "a"}])
    return ChatPrompt({"messages": messages}, len(messages))


@pytest.mark.parametrize(("role", "fine"), [("tool", True), ("function", True), ("user", False), ("assistant", False)])
def test_an_empty_stop_is_an_answer_to_a_tool_alone(role: str, fine: bool) -> None:
    out, stream = run([events(ROLE, STOP, "[DONE]")], prompt=asked(role))
    assert (stream.error is None) == fine and out.endswith(b"[DONE]\n\n") == fine
    if fine:
        assert [one["choices"][0]["finish_reason"] for one in parse(out)[:2]] == [None, "stop"]
    _, unfinished = run([events(ROLE, "[DONE]")], prompt=asked(role))
    assert unfinished.error is not None  # it has not even said that it stops
