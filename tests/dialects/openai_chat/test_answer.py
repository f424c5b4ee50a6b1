"""Whole answers, and streams and answers made of each other."""

from __future__ import annotations

import json
import tarfile
from typing import Any

import pytest
from openai.types.chat import ChatCompletion
from pydantic import ValidationError

from headgate import errors
from headgate.dialects.base import Answer, Reply
from headgate.dialects.openai_chat import ChatStream, answer_from_stream, whole_answer
from headgate.model import Usage
from tests.dialects.openai_chat.streams import CREATED, IDENT, MODEL, check_contract, chunk, events, parse
from tests.paths import SHARED

NONSTREAM = SHARED / "streams" / "nonstream.json"
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


REPLY = Reply(IDENT, CREATED, MODEL, provider="up")


def whole(message: Any, finish: str | None = "stop", **members: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    head = {"id": "up-1", "object": "chat.completion", "created": 5, "model": "up-model"}
    return {**head, "choices": [choice], "usage": USAGE, **members}


def get(body: Any) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return whole_answer(raw, Reply(ident=IDENT, created=CREATED, model=MODEL, provider="up", prompt_tokens=7))


def test_what_is_ours_is_put_in_and_the_rest_kept() -> None:
    body = whole({"role": "assistant", "content": "Hi", "x": 1}, system_fingerprint="fp", timings={"a": 1.5})
    result = get(body)
    assert json.loads(result.write(b'{"provider":"up"}', None)) == {
        **body,
        "id": IDENT,
        "created": CREATED,
        "headgate": {"provider": "up"},
    }
    used = result.used.delivered
    assert (used.prompt, used.completion, used.basis) == (9, 3, "provider")
    assert (result.text_bytes, result.finish, result.hollow, result.model) == (2, "stop", False, "up-model")


def test_what_is_missing_is_filled() -> None:
    result = get({"choices": [{"message": {"content": "Hello, hello"}}]})
    assert json.loads(result.write(None, None)) == {
        "id": IDENT,
        "object": "chat.completion",
        "created": CREATED,
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello, hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
    assert result.used.delivered == Usage(7, 3)


def test_tool_calls_finish_as_such_and_are_completed() -> None:
    calls = [{"function": {"name": "f", "arguments": None}}, {"id": "b", "type": "function", "function": {"name": "g"}}]
    result = json.loads(get(whole({"role": "assistant", "content": None, "tool_calls": calls})).write(None, None))
    (choice,) = result["choices"]
    assert choice["finish_reason"] == "tool_calls"
    first, second = choice["message"]["tool_calls"]
    assert first["id"].startswith("call_")
    assert first["type"] == "function"
    assert first["function"] == {"name": "f", "arguments": ""}
    assert second["id"] == "b"
    assert "index" not in first


@pytest.mark.parametrize(
    ("message", "finish", "hollow"),
    [
        ({"role": "assistant", "content": ""}, "stop", True),
        ({"role": "assistant", "content": None}, "stop", True),
        ({}, None, True),
        ({"role": "assistant", "content": ""}, "length", False),
        ({"role": "assistant", "content": ""}, "content_filter", False),
        ({"role": "assistant", "content": None, "refusal": "no"}, "stop", False),
        ({"role": "assistant", "content": None, "reasoning_content": "hm"}, "stop", True),
        ({"role": "assistant", "content": None, "reasoning_content": "hm"}, "length", False),
        ({"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f"}}]}, "stop", False),
        ({"role": "assistant", "content": [{"type": "text", "text": "x"}]}, "stop", False),
    ],
)
def test_hollow(message: Any, finish: str | None, hollow: bool) -> None:
    assert get(whole(message, finish)).hollow is hollow


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (b"", errors.UPSTREAM_GARBAGE, "empty body"),
        (b"<html>x</html>", errors.UPSTREAM_GARBAGE, "web page"),
        (b"[1]", errors.UPSTREAM_GARBAGE, "no chat completion"),
        (b'{"choices":[', errors.UPSTREAM_GARBAGE, "no chat completion"),
        ({"id": "x"}, errors.UPSTREAM_GARBAGE, "no chat completion"),
        ({"choices": []}, errors.UPSTREAM_GARBAGE, "no chat completion"),
        ({"choices": None}, errors.UPSTREAM_GARBAGE, "no chat completion"),
        ({"choices": [1]}, errors.UPSTREAM_GARBAGE, "no chat completion"),
        ({"error": {"message": "boom", "code": 429}}, errors.RATE_LIMITED, "boom"),
        ({"error": "boom"}, errors.UPSTREAM_ERROR_EVENT, "boom"),
        ({"message": "boom"}, errors.UPSTREAM_ERROR_EVENT, "boom"),
        (whole({"content": "x"}, "error"), errors.UPSTREAM_ERROR_EVENT, "broke off"),
    ],
)
def test_what_is_no_answer(body: Any, kind: errors.Kind, says: str) -> None:
    result = get(body)
    assert result.error is not None
    assert result.error.kind is kind
    assert says in result.error.message
    assert result.write(None, None) == b""


def test_bad_utf8_and_a_byte_order_mark_do_not_lose_an_answer() -> None:
    body = b"\xef\xbb\xbf" + json.dumps(whole({"role": "assistant", "content": "aXb"})).encode().replace(b"X", b"\xff")
    assert json.loads(get(body).write(None, None))["choices"][0]["message"]["content"] == "a\ufffdb"


def test_null_error_is_no_error() -> None:
    assert get(whole({"content": "x"}, error=None)).error is None


def test_a_stream_of_a_whole_answer() -> None:
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    body = json.dumps(whole({"role": "assistant", "content": "Hi", "tool_calls": calls}, "tool_calls"), indent=1)
    for usage in (True, False):
        stream = ChatStream(Reply(IDENT, CREATED, MODEL, usage, provider="up"))
        out = stream.whole(body.encode()) + stream.tail(stream.used.billed)
        chunks = check_contract(out, stream, usage=usage)
        delta = chunks[1]["choices"][0]["delta"]
        assert delta["content"] == "Hi"
        assert delta["tool_calls"] == [{**calls[0], "index": 0}]
        assert stream.used.billed.completion == 3
        assert chunks[-1].get("usage") == (USAGE if usage else None)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"choices":[]}'])
def test_no_stream_is_made_of_garbage(body: bytes) -> None:
    stream = ChatStream(Reply(IDENT, CREATED, MODEL, False, provider="up"))
    assert stream.whole(body) == b""
    assert stream.error is not None
    assert stream.error.kind is errors.UPSTREAM_GARBAGE


def test_no_stream_is_made_of_an_error_or_of_nothing() -> None:
    for body, kind in (({"error": "x"}, errors.UPSTREAM_ERROR_EVENT), (whole({"content": ""}), errors.UPSTREAM_HOLLOW)):
        stream = ChatStream(Reply(IDENT, CREATED, MODEL, False, provider="up"))
        stream.whole(json.dumps(body).encode())
        assert stream.error is not None
        assert stream.error.kind is kind


def test_an_answer_of_a_whole_stream() -> None:
    tool = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"x":1}'}}
    body = events(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "He"}),
        chunk({"content": "y", "reasoning_content": "hm"}),
        chunk({"tool_calls": [tool]}),
        chunk({"tool_calls": [more]}),
        chunk({}, "stop", usage=USAGE),
        "[DONE]",
    )
    result = answer_from_stream(body, REPLY)
    assert json.loads(result.write(b"{}", None)) == {
        "id": IDENT,
        "object": "chat.completion",
        "created": CREATED,
        "model": "up-model",
        "usage": USAGE,
        "choices": [
            {
                "index": 0,
                "message": {
                    "content": "Hey",
                    "reasoning_content": "hm",
                    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}],
                    "role": "assistant",
                },
                "finish_reason": "tool_calls",
            }
        ],
        "headgate": {},
    }


def test_whatever_comes_in_pieces_is_put_together() -> None:
    def told(token: str) -> dict[str, Any]:
        return {"content": [{"token": token, "logprob": -0.5, "top_logprobs": []}], "refusal": None}

    pieces: list[Any] = [
        {**chunk({"role": "assistant", "content": "a", "audio": {"id": "x", "data": "QU", "transcript": "a"}})},
        {**chunk({"content": "b", "audio": {"data": "Jj", "transcript": "b"}, "annotations": [{"type": "one"}]})},
        {**chunk({"annotations": [{"type": "two"}], "audio": {"expires_at": 9}})},
        {**chunk({"function_call": {"name": "f", "arguments": ""}})},
        {**chunk({"function_call": {"arguments": "{}"}})},
    ]
    safe = {"hate": {"filtered": False, "severity": "safe"}}
    for piece in pieces:  # what every chunk repeats comes in no pieces
        piece["choices"][0]["content_filter_results"] = safe
    for piece, token in zip(pieces, "ab", strict=False):
        piece["choices"][0]["logprobs"] = told(token)
    body = events(*pieces, chunk({}, "stop", usage=USAGE), "[DONE]")
    result = answer_from_stream(body, REPLY)
    (choice,) = json.loads(result.write(None, None))["choices"]
    assert choice["content_filter_results"] == safe
    assert choice["logprobs"] == {"content": [*told("a")["content"], *told("b")["content"]]}
    assert choice["message"] == {
        "role": "assistant",
        "content": "ab",
        "audio": {"id": "x", "data": "QUJj", "transcript": "ab", "expires_at": 9},
        "annotations": [{"type": "one"}, {"type": "two"}],
        "function_call": {"name": "f", "arguments": "{}"},
    }


def test_half_a_stream_is_no_answer() -> None:
    result = answer_from_stream(events(chunk({"content": "He"})), REPLY)
    assert result.error is not None
    assert result.error.kind is errors.UPSTREAM_CUT


@pytest.mark.skipif(not NONSTREAM.is_file(), reason="this file of ../shared is absent: streams/nonstream.json")
def test_every_recorded_answer_reads_the_same() -> None:
    entries = {entry["file"] for entry in json.loads(NONSTREAM.read_text()) if "chat/completions" in entry["url"]}
    checked = 0
    with tarfile.open(NONSTREAM.parent / "corpus.tar.gz") as archive:
        for member in archive:
            if member.name.removeprefix("./") not in entries:
                continue
            file = archive.extractfile(member)
            assert file is not None
            theirs = json.loads(file.read())
            if "choices" not in theirs:
                continue
            checked += 1
            result = get(theirs)
            assert result.error is None, member.name
            ours = json.loads(result.write(None, None))
            if is_valid(theirs):
                assert is_valid(ours), member.name
            for got, said in zip(ours["choices"], theirs["choices"], strict=True):
                assert got["message"].get("content") == text_of(said["message"].get("content"))
                assert len(got["message"].get("tool_calls") or []) == len(said["message"].get("tool_calls") or [])
            assert ours["usage"]["total_tokens"] >= ours["usage"]["completion_tokens"] >= 0
    assert checked > 50


def is_valid(body: Any) -> bool:
    try:
        ChatCompletion.model_validate(body)
    except ValidationError:
        return False
    return True


def text_of(content: Any) -> Any:
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    return content


def test_parse_is_used_on_tails_too() -> None:
    stream = ChatStream(Reply(IDENT, CREATED, MODEL, True, provider="up"))
    stream.feed(events(chunk({"content": "x"}), "[DONE]"))
    finish, usage = parse(stream.tail(stream.used.billed))
    assert finish["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert usage["choices"] == []


FUNCTION = {"name": "f", "arguments": '{"a":1}'}
WHOLE_CALL = {"id": "c1", "type": "function", "function": FUNCTION}


@pytest.mark.parametrize(
    "call",
    [
        WHOLE_CALL,
        {**WHOLE_CALL, "type": ""},
        {**WHOLE_CALL, "type": None},
        {"id": "c1", "function": FUNCTION},
        {**WHOLE_CALL, "index": 0},
        {**WHOLE_CALL, "function": {"name": "f", "arguments": {"a": 1}}},
    ],
)
@pytest.mark.parametrize("finish", ["tool_calls", "stop", "", None])
def test_whole_answer_call_has_type_and_arguments(call: dict[str, Any], finish: Any) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = get({"choices": [{"index": 0, "message": message, "finish_reason": finish}]})
    (choice,) = json.loads(result.write(None, None))["choices"]
    (found,) = choice["message"]["tool_calls"]
    assert json.loads(found["function"].pop("arguments")) == {"a": 1}
    assert found == {"id": "c1", "type": "function", "function": {"name": "f"}}
    assert choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("ident", [None, "", 7])
def test_whole_answer_calls_get_missing_ids(ident: Any) -> None:
    calls = [{**WHOLE_CALL, "id": ident}, {"function": FUNCTION}, {**WHOLE_CALL, "id": "c1"}, WHOLE_CALL]
    message = {"role": "assistant", "content": "", "tool_calls": calls}
    result = get({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
    found = json.loads(result.write(None, None))["choices"][0]["message"]["tool_calls"]
    idents = [call["id"] for call in found]
    assert len(set(idents)) == len(calls) and all(isinstance(one, str) and one for one in idents)
