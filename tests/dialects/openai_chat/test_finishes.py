"""Finish reasons: every server's word for one, and those that come before the end."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from headgate import errors
from headgate.dialects.base import Reply
from headgate.dialects.openai_chat import ChatStream, answer
from tests.dialects.openai_chat.streams import bytewise, chunk, events, parse, run

ROLE = chunk({"role": "assistant", "content": ""})
WORDS = {
    "stop": "stop STOP FinishReason.STOP FINISH_REASON_STOP end_turn stop_sequence eos eos_token COMPLETE pause_turn",
    "length": "length LENGTH max_tokens MAX_TOKENS maxTokens max-tokens max_output_tokens model_length "
    "model_context_window_exceeded ERROR_LIMIT max_new_tokens out_of_tokens tokens_limit token_limit "
    "max_completion_tokens maximum_tokens input_too_long TOO_LONG",
    "content_filter": "content_filter SAFETY IMAGE_SAFETY PROHIBITED_CONTENT BLOCKLIST SPII RECITATION LANGUAGE "
    "refusal sensitive content_filtered guardrail_intervened ERROR_TOXIC FinishReason.SAFETY risk content_risk RISK",
}
OF_CALLS = ["tool_calls", "tool_call", "tool_use", "TOOL_CALL", "function_call", "FUNCTION_CALL"]
FAILED = [
    "error",
    "ERROR",
    "timeout",
    "network_error",
    "insufficient_system_resource",
    "engine_overloaded",
    "abort",
    "cancelled",
    "server_error",
    "MALFORMED_FUNCTION_CALL",
    "USER_CANCEL",
]
NONE = ["", " ", "null", "NULL", "none", "None", "nil", "FINISH_REASON_UNSPECIFIED"]


def reasons(out: bytes) -> list[str]:
    return [
        choice["finish_reason"]
        for one in parse(out)
        for choice in one.get("choices", ())
        if choice["finish_reason"] not in (None, "error")
    ]


def text(out: bytes) -> str:
    return "".join(choice["delta"].get("content") or "" for one in parse(out) for choice in one.get("choices", ()))


def whole(finish: object, **choice: Any) -> bytes:
    one = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": finish, **choice}
    return json.dumps({"object": "chat.completion", "choices": [one]}).encode()


def read(body: bytes) -> Any:
    return answer(body, Reply(ident="x", created=1, model="m", provider="up"))


@pytest.mark.parametrize(
    ("reason", "word"), [(reason, word) for reason, words in WORDS.items() for word in words.split()]
)
def test_a_word_is_one_of_openais_and_kept_where_it_says_more(reason: str, word: str) -> None:
    for body in ([ROLE, chunk({"content": "Hi"}), chunk({}, word)], [chunk({"content": "Hi"}, word)]):
        out, stream = run([events(*body, "[DONE]")])
        assert (text(out), reasons(out), stream.error) == ("Hi", [reason], None)
        ((native,),) = [
            [choice.get("native_finish_reason") for choice in one["choices"]]
            for one in parse(out)
            if one["choices"] and one["choices"][0]["finish_reason"]
        ]
        assert native == (None if word.lower() == reason else word)
    (choice,) = json.loads(read(whole(word)).write(None, None))["choices"]
    assert choice["finish_reason"] == reason
    assert choice.get("native_finish_reason") == (None if word.lower() == reason else word)


@pytest.mark.parametrize("word", OF_CALLS)
def test_a_word_of_calls_counts_where_there_is_one(word: str) -> None:
    out, stream = run([events(ROLE, chunk({"content": "Hi"}), chunk({}, word), "[DONE]")])
    assert (reasons(out), stream.error) == (["stop"], None) and f'"native_finish_reason":"{word}"'.encode() in out
    (choice,) = json.loads(read(whole(word)).write(None, None))["choices"]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == ("stop", word)
    call = [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    for body in ([chunk({"tool_calls": call}), chunk({}, word)], [chunk({}, word), chunk({"tool_calls": call})]):
        out, stream = run([events(ROLE, *body, "[DONE]")])
        assert (reasons(out), stream.error) == (["tool_calls"], None)
    message = {"role": "assistant", "content": None, "tool_calls": call}
    (choice,) = json.loads(read(whole(word, message=message)).write(None, None))["choices"]
    assert choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(("word", "reason"), [("stop", "stop"), ("length", "length"), ("MAX_TOKENS", "length")])
@pytest.mark.parametrize("outer", [{}, {"finish_reason": None}, {"finish_reason": ""}, {"finish_reason": "null"}])
@pytest.mark.parametrize("where", ["delta", "message"])
def test_a_finish_reason_inside_a_delta_or_a_message_is_one(where: str, outer: Any, word: str, reason: str) -> None:
    alone = {**chunk({}), "choices": [{"index": 0, where: {"finish_reason": word}, **outer}]}
    beside = {**chunk({}), "choices": [{"index": 0, where: {"content": "Hi", "finish_reason": word}, **outer}]}
    for body in ([ROLE, chunk({"content": "Hi"}), alone], [beside]):
        for end in ([], ["[DONE]"]):
            out, stream = run([events(*body, *end)])
            assert (text(out), reasons(out), stream.error) == ("Hi", [reason], None)
            assert all("finish_reason" not in choice["delta"] for one in parse(out) for choice in one["choices"])
    told = json.dumps({"choices": [{"message": {"content": "Hi", "finish_reason": word}, **outer}]}).encode()
    (choice,) = json.loads(read(told).write(None, None))["choices"]
    assert choice["finish_reason"] == reason and "finish_reason" not in choice["message"]


def test_a_finish_reason_inside_a_delta_stands_behind_the_choices_own() -> None:
    both = {**chunk({}), "choices": [{"index": 0, "delta": {"finish_reason": "stop"}, "finish_reason": "length"}]}
    out, _ = run([events(chunk({"content": "Hi"}), both)])
    assert reasons(out) == ["length"]
    _, stream = run([events(chunk({"content": "Hi"}), chunk({"finish_reason": "error"}))])
    assert stream.error is not None
    out, stream = run([events(*(chunk({"content": one, "finish_reason": None}) for one in "ab"))])
    assert stream.error is not None and text(out) == "ab"


def test_an_unknown_word_is_a_stop_and_kept() -> None:
    out, _ = run([events(ROLE, chunk({"content": "Hi"}), chunk({}, "wandered_off"), "[DONE]")])
    assert reasons(out) == ["stop"] and b'"native_finish_reason":"wandered_off"' in out
    google, _ = run([events(chunk({"content": "Hi"}), chunk({}, "content_filter: RECITATION"), "[DONE]")])
    assert reasons(google) == ["content_filter"]


@pytest.mark.parametrize("word", FAILED)
def test_a_word_of_a_failure_is_no_end(word: str) -> None:
    for choice in ({"finish_reason": word}, {"finish_reason": "stop", "native_finish_reason": word}):
        broken = {**chunk({}), "choices": [{"index": 0, "delta": {}, **choice}]}
        out, stream = run([events(ROLE, chunk({"content": "Hal"}), broken, "[DONE]")])
        assert stream.error is not None and word in stream.error.message
        assert text(out) == "Hal" and b"[DONE]" not in out and reasons(out) == []
    assert read(whole(word)).error is not None
    assert read(whole("stop", native_finish_reason=word)).error is not None


def test_a_failure_has_the_class_that_its_word_names() -> None:
    codes = {}
    for word in ("timeout", "engine_overloaded", "error"):
        _, stream = run([events(chunk({"content": "Hal"}), chunk({}, word))])
        assert stream.error is not None
        codes[word] = stream.error.kind.code
    assert codes == {
        "timeout": "upstream_timeout",
        "engine_overloaded": "upstream_overloaded",
        "error": "upstream_error",
    }


@pytest.mark.parametrize(
    ("native", "reason"), [("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("end_turn", "stop")]
)
def test_the_servers_own_word_counts_where_it_is_stricter(native: str, reason: str) -> None:
    last = {
        **chunk({}),
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "native_finish_reason": native}],
    }
    out, _ = run([events(chunk({"content": "Hi"}), last, "[DONE]")])
    assert reasons(out) == [reason]


@pytest.mark.parametrize("word", NONE)
def test_a_word_for_nothing_is_no_end(word: str) -> None:
    out, stream = run([events(chunk({"content": "a"}, word), chunk({"content": "b"}, word), chunk({}, "length"))])
    assert (text(out), reasons(out), stream.error) == ("ab", ["length"], None)
    _, cut = run([events(chunk({"content": "a"}, word), chunk({}, word))])
    assert cut.error is not None and cut.error.kind.code == "upstream_cut"


EARLY = {
    "on every chunk": [chunk({"content": text}, "stop") for text in "abc"],
    "on every chunk, then alone": [*(chunk({"content": text}, "length") for text in "abc"), chunk({}, "stop")],
    "on the role": [chunk({"role": "assistant", "content": ""}, "stop"), *(chunk({"content": text}) for text in "abc")],
    "in the middle": [chunk({"content": "ab"}), chunk({}, "stop"), chunk({"content": "c"}), chunk({}, "stop")],
    "with the first text": [chunk({"content": "ab"}, "stop"), chunk({"content": "c"}), chunk({}, "stop")],
}


@pytest.mark.parametrize("body", EARLY.values(), ids=list(EARLY))
def test_what_is_shown_behind_a_finish_reason_takes_it_back(body: list[Any]) -> None:
    data = events(*body, "[DONE]")
    out, stream = run([data])
    assert (text(out), reasons(out), stream.error) == ("abc", ["stop"], None)
    assert out == run(bytewise(data))[0]
    before_last = out.rstrip().split(b"\n\n")[-3:]
    assert b'"finish_reason":"stop"' in before_last[0].replace(b": ", b":") or b'"stop"' in before_last[1]


@pytest.mark.parametrize("body", EARLY.values(), ids=list(EARLY))
def test_silence_is_no_end_where_finish_reasons_come_early(body: list[Any]) -> None:
    stream = ChatStream(Reply("x", 1, "m", False))
    for one in body:
        stream.feed(events(one))
    assert stream.quiet in (0.0, math.inf)
    stream.close(clean=False)  # the connection broke, or nothing came for too long
    assert stream.error is not None and not stream.done


def test_silence_ends_a_finished_stream() -> None:
    stream = ChatStream(Reply("x", 1, "m", False))
    stream.feed(events(ROLE, chunk({"content": "a"})))
    assert stream.quiet == 0.0
    stream.feed(events(chunk({}, "stop")))
    behind_finish = stream.quiet
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    stream.feed(events({**chunk({}), "choices": [], "usage": usage}))
    assert 0.0 < stream.quiet < behind_finish < math.inf
    stream.close(clean=False)
    assert stream.done and stream.error is None


def test_a_call_behind_a_stop_makes_it_tool_calls() -> None:
    call = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]}
    for end in ([], [chunk({}, "stop")]):
        out, _ = run([events(ROLE, chunk({"content": "I look."}), chunk({}, "stop"), chunk(call), *end, "[DONE]")])
        assert reasons(out) == ["tool_calls"]
    legacy = {"function_call": {"name": "f", "arguments": "{}"}}
    assert reasons(run([events(chunk(legacy), chunk({}, "stop"), "[DONE]")])[0]) == ["function_call"]


def test_first_finish_reason_counts() -> None:
    out, _ = run([events(chunk({"content": "a"}), chunk({}, "length"), chunk({}, "stop"), "[DONE]")])
    assert reasons(out) == ["length"]
    both = {
        **chunk({}),
        "choices": [
            {"index": 0, "delta": {}, "finish_reason": "stop"},
            {"index": 1, "delta": {}, "finish_reason": "length"},
        ],
    }
    out, _ = run([events(chunk({"content": "a"}), chunk({"content": "b"}, index=1), both)], choices=2)
    assert reasons(out) == ["stop", "length"]


NO_CALL = {"name": "", "arguments": ""}


@pytest.mark.parametrize("empty", [NO_CALL, {}, {"name": None, "arguments": None}, {"name": ""}, None])
def test_an_empty_function_call_is_none(empty: Any) -> None:
    out, stream = run([events(ROLE, chunk({"content": "a", "function_call": empty}), chunk({}, "stop"), "[DONE]")])
    assert stream.error is None and reasons(out) == ["stop"]
    message = {"role": "assistant", "content": "a", "function_call": empty}
    for finish in ("stop", "", None):
        body = {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}
        assert read(json.dumps(body).encode()).finish == "stop"
    out, stream = run([events(ROLE, chunk({"function_call": empty}), chunk({}, "stop"), "[DONE]")])
    assert stream.error is not None and stream.error.kind is errors.UPSTREAM_HOLLOW
    # one whose arguments are empty is a call, whenever its name comes
    named = {"name": "f", "arguments": ""}
    out, stream = run([events(ROLE, chunk({"function_call": empty}), chunk({"function_call": named}), "[DONE]")])
    assert stream.error is None or stream.error.kind is not errors.UPSTREAM_HOLLOW


def test_an_empty_audio_is_nothing_to_see() -> None:
    audio = {"id": "", "data": "", "expires_at": 0, "transcript": ""}
    body = {"choices": [{"index": 0, "message": {"content": None, "audio": audio}, "finish_reason": "stop"}]}
    assert read(json.dumps(body).encode()).hollow
