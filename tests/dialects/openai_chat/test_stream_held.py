"""What is held back until it is complete, and what becomes of pieces that are odd."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.dialects.base import Reply
from headgate.dialects.openai_chat import ChatStream, answer, answer_from_stream
from tests.dialects.openai_chat.streams import bytewise, check_contract, chunk, events, run

ROLE = chunk({"role": "assistant", "content": ""})
CALL = [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def texts(out: bytes, stream: ChatStream) -> str:
    chunks = check_contract(out, stream, usage=True)
    return "".join(choice["delta"].get("content") or "" for one in chunks for choice in one["choices"])


def parts(*pieces: Any) -> list[bytes]:
    return [events(piece) for piece in pieces]


@pytest.mark.parametrize("cut", ["each event by itself", "bytewise", "in one piece"])
@pytest.mark.parametrize("hold", ["", "all", "tools"])
def test_text_that_is_held_comes_in_its_order(hold: str, cut: str) -> None:
    """Also what the template of the chunks before would pass on without looking."""
    pieces = parts(
        ROLE,
        *(chunk({"content": text}) for text in ('{"a":1,', '"b":2,', '"c":3', "}", " ")),
        chunk({}, "stop"),
        "[DONE]",
    )
    whole = b"".join(pieces)
    fed = {"each event by itself": pieces, "bytewise": bytewise(whole), "in one piece": [whole]}[cut]
    assert texts(*run(fed, hold=hold)) == '{"a":1,"b":2,"c":3} '


def test_text_behind_a_tool_call_that_is_held_stays_behind_it() -> None:
    pieces = parts(
        ROLE,
        *(chunk({"content": text}) for text in ("hi ", "there ")),
        chunk({"tool_calls": CALL}),
        *(chunk({"content": text}) for text in ("mid ", "end ", "of it")),
        chunk({}, "tool_calls"),
        "[DONE]",
    )
    out, stream = run(pieces, hold="tools", keep=True)
    assert texts(out, stream) == "hi there mid end of it"
    assert out.index(b"tool_calls") < out.index(b"mid ")


def test_what_is_held_is_not_what_another_attempt_goes_on_from() -> None:
    stream = ChatStream(Reply("chatcmpl-1", 1, "m", False, hold="tools", keep=True))
    sent = b"".join(
        stream.feed(piece)
        for piece in parts(
            ROLE,
            chunk({"content": "a "}),
            chunk({"content": "b "}),
            chunk({"tool_calls": CALL}),
            *(chunk({"content": f"TEXT{number} "}) for number in range(3)),
        )
    )
    assert b"TEXT" not in sent and b"c1" not in sent
    assert stream.delivered is not None and stream.delivered.text == "a b "


@pytest.mark.parametrize("finish", ["error", "abort", "insufficient_system_resource"])
@pytest.mark.parametrize("known", [0, 3], ids=["first", "behind others"])
def test_text_on_a_failing_chunk_is_not_counted(finish: str, known: int) -> None:
    """It is not sent, so whoever goes on has to say it."""
    stream = ChatStream(Reply("chatcmpl-1", 1, "m", False, keep=True))
    said = [f"word{number} " for number in range(known + 1)]
    for piece in parts(ROLE, *(chunk({"content": text}) for text in said)):
        stream.feed(piece)
    assert stream.feed(events(chunk({"content": "lost "}, finish))) == b""
    assert stream.error is not None
    assert stream.delivered is not None and stream.delivered.text == "".join(said)


def test_a_call_that_is_held_is_not_what_the_client_was_given() -> None:
    """Else whoever goes on is given too little to say, and the bill has it twice."""
    stream = ChatStream(Reply("chatcmpl-1", 1, "m", False, hold="tools", keep=True))
    argument = [{"index": 0, "function": {"arguments": "12345678"}}]
    for piece in parts(ROLE, chunk({"content": "one "}), chunk({"content": "two "}), chunk({"tool_calls": CALL})):
        stream.feed(piece)
    for _ in range(20):
        stream.feed(events(chunk({"tool_calls": argument})))
    assert stream.delivered is not None and stream.delivered.tokens == 2
    assert stream.used.billed.completion > 20  # what it has cost all the same


def test_half_a_function_call_is_held_too() -> None:
    stream = ChatStream(Reply("chatcmpl-1", 1, "m", False, hold="tools", keep=True))
    sent = stream.feed(events(ROLE, chunk({"function_call": {"name": "f", "arguments": ""}})))
    assert b"function_call" not in sent and not stream.visible


@pytest.mark.parametrize("said", [{"content": "{}"}, {"tool_calls": CALL}, {"function_call": {"name": "f"}}])
def test_error_behind_a_held_answer_is_ignored(said: dict[str, Any]) -> None:
    pieces = parts(ROLE, chunk(said), chunk({}, "stop"), {"error": {"message": "late"}})
    out, stream = run(pieces, hold="all")
    assert stream.done and stream.error is None and next(iter(said)).encode() in out
    assert run(pieces[:2] + pieces[3:], hold="all")[1].error is not None


def test_arguments_that_come_as_an_object_go_out_as_a_string() -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": {"x": [1, "\u00e9"]}}}
    out, stream = run(parts(ROLE, chunk({"tool_calls": [call]}), chunk({}, "tool_calls"), "[DONE]"))
    (told,) = [
        one["function"]["arguments"]
        for part in check_contract(out, stream, usage=True)
        for choice in part["choices"]
        for one in choice["delta"].get("tool_calls", ())
    ]
    assert json.loads(told) == {"x": [1, "\u00e9"]}
    body = json.dumps(
        {"choices": [{"message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    )
    whole = json.loads(answer(body.encode(), Reply(ident="i", created=1, model="m")).write(None, None))
    assert json.loads(whole["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]) == {"x": [1, "\u00e9"]}


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 0}, {"completion_tokens": 5}),
        ({"prompt_tokens": 10, "completion_tokens": 0}, {"prompt_tokens": 0, "completion_tokens": 5}),
        ({"prompt_tokens": 10, "completion_tokens": 0}, {"prompt_tokens": None, "completion_tokens": 5}),
        ({"prompt_tokens": 10, "completion_tokens": 5}, {"prompt_tokens": 0, "completion_tokens": 0}),
        ({"prompt_tokens": 10, "completion_tokens": 5}, {"prompt_tokens": None, "completion_tokens": None}),
        ({"prompt_tokens": 10, "completion_tokens": 5}, {}),
        ({"prompt_tokens": 9, "completion_tokens": 1}, {"prompt_tokens": 10, "completion_tokens": 5}),
        ({"input_tokens": 10, "output_tokens": 1}, {"input_tokens": 0, "output_tokens": 5}),
    ],
)
def test_usage_that_is_told_in_two_parts_is_one(first: dict[str, Any], last: dict[str, Any]) -> None:
    told = parts(ROLE, chunk({"content": "a"}, usage=first), chunk({}, "stop", usage=last), "[DONE]")
    _, stream = run(told)
    assert (stream.used.billed.prompt, stream.used.billed.completion, stream.used.billed.basis) == (10, 5, "provider")


def test_empty_chunk_behind_the_finish_is_no_end() -> None:
    soon = chunk({"content": "a"}, usage={"prompt_tokens": 10, "completion_tokens": 1})
    empty: dict[str, Any] = {**chunk({}), "choices": [], "x": []}
    late = {**empty, "usage": {"prompt_tokens": 10, "completion_tokens": 9}}
    _, stream = run(parts(ROLE, soon, chunk({}, "stop"), empty, late))
    assert stream.done and (stream.used.billed.prompt, stream.used.billed.completion) == (10, 9)


def test_a_whole_answer_whose_error_is_false_is_an_answer() -> None:
    body = json.dumps({"error": False, "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}).encode()
    assert answer(body, Reply(ident="i", created=1, model="m")).error is None


def test_estimate_for_a_plain_request_stays_estimate() -> None:
    body = events(ROLE, chunk({"content": "hello"}), chunk({}, "stop"), "[DONE]")
    read = answer_from_stream(body, Reply(ident="i", created=1, model="m", prompt_tokens=9))
    assert read.error is None
    assert (read.used.billed.prompt, read.used.billed.basis) == (9, "estimated")
