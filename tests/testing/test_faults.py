"""Every fault's bytes, as a raw client sees them.  A fault without a row in EXPECTED fails the first test."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import pytest

from headgate.testing import FAULTS, serve
from headgate.testing.faults.oddities import UTF8
from headgate.testing.provider import lorem
from headgate.testing.provider.tools import CALLS
from tests.testing.raw import PROMPT, Answer, ask, chat, read, run

WHOLE = lorem.text(60)
Check = Callable[[Answer], object]


def whole(answer: Answer) -> bool:
    """A proper stream with the whole text."""
    proper = (answer.status, answer.ended, answer.text) == (200, "complete", WHOLE)
    return proper and answer.finishes == ["stop"] and answer.payloads[-1] == "[DONE]"


def failed(status: int, code: str | None, param: str | None = None) -> Check:
    def check(answer: Answer) -> bool:
        error = answer.json["error"]
        found = (answer.status, answer.ended, error["code"], error["param"])
        return found == (status, "complete", code, param) and answer.headers["content-type"] == "application/json"

    return check


def cut(ended: str, tokens: int) -> Check:
    """The stream ends early, after so many tokens, with neither finish nor [DONE]."""

    def check(answer: Answer) -> bool:
        said = (answer.ended, answer.text, answer.finishes) == (ended, lorem.text(tokens), [])
        return said and "[DONE]" not in answer.payloads

    return check


def erring(tokens: int, ending: str) -> Check:
    """After so many tokens the body's last line is ``ending``, and the body ends properly."""

    def check(answer: Answer) -> bool:
        last = answer.body.decode().rstrip("\n").split("\n")[-1]
        return answer.ended == "complete" and answer.text == lorem.text(tokens) and last.startswith(ending)

    return check


def calls(count: int, finish: str = "tool_calls") -> Check:
    """The first ``count`` tool calls, put together by index (by position, where there is none)."""

    def check(answer: Answer) -> bool:
        found: dict[int, list[str]] = {}
        for chunk in answer.chunks:
            for choice in chunk["choices"]:
                for place, call in enumerate(choice["delta"].get("tool_calls", [])):
                    mine = found.setdefault(call.get("index", place), [call.get("id", ""), "", ""])
                    mine[1] += call["function"].get("name", "")
                    mine[2] += call["function"]["arguments"]
        return [tuple(found[index]) for index in sorted(found)] == list(CALLS[:count]) and answer.finishes == [finish]

    return check


def raw(*needles: bytes) -> Check:
    return lambda answer: whole(answer) and all(needle in answer.raw for needle in needles)


def unanswered(answer: Answer) -> bool:
    return (answer.raw, answer.ended) == (b"", "open")


def document(answer: Answer) -> bool:
    return answer.ended == "complete" and answer.json["choices"][0]["message"]["content"] == WHOLE


def huge(size: int) -> Check:
    def check(answer: Answer) -> bool:
        sizes = [len(payload) for payload in answer.payloads]
        return max(sizes) == size and answer.text.startswith("xxx") and answer.text.endswith(lorem.text(2))

    return check


def split_inside_characters(answer: Answer) -> bool:
    return answer.text == UTF8 and answer.pieces > 20 and answer.finishes == ["stop"]


def usages(answer: Answer) -> list[int]:
    return [chunk["usage"]["completion_tokens"] for chunk in answer.chunks if chunk.get("usage")]


EXPECTED: dict[str, list[tuple[str, Check]]] = {
    "429-once": [
        ("?key=a", lambda a: failed(429, "rate_limit_exceeded")(a) and a.headers["retry-after"] == "2"),
        ("?key=a", whole),
        ("?key=b&retry_after=7", lambda a: a.headers["retry-after"] == "7"),
    ],
    "429-always": [("", lambda a: failed(429, "rate_limit_exceeded")(a) and "retry-after" not in a.headers)] * 3,
    "500-once": [("?key=a", failed(500, None)), ("?key=a", whole), ("?key=a", whole)],
    "503-always": [("", failed(503, None))] * 3,
    "reset-once": [("?key=a", lambda a: (a.raw, a.ended) == (b"", "reset")), ("?key=a", whole)],
    "accept-silence": [("", unanswered), ("?for=0.2", lambda a: (a.raw, a.ended) == (b"", "eof"))],
    "late-first-token": [
        ("?after=0.3", lambda a: whole(a) and a.duration_s > 0.29 and a.duration_s - a.first_byte_s > 0.2)
    ],
    "cut": [("", cut("eof", 40)), ("?after=3", cut("eof", 3)), ("?reset=1", cut("reset", 40))],
    "stall": [("?after=5&for=0.3", lambda a: whole(a) and a.duration_s > 0.29), ("", cut("open", 20))],
    "bad-json-event": [("", lambda a: whole(a) and len(a.payloads) == len(a.chunks) + 2)],
    "no-done": [
        ("", lambda a: (a.text, a.finishes, a.ended) == (WHOLE, ["stop"], "complete") and usages(a) == [60]),
        ("?for=9", lambda a: (a.finishes, a.ended) == (["stop"], "open")),
    ],
    "context-length": [("", failed(400, "context_length_exceeded", "messages"))],
    "content-filter": [("", failed(400, "content_filter", "prompt"))],
    "prefill-rejected": [("", whole)],
    "outage": [("?for=0.3&key=a", failed(503, None)), ("?for=0&key=b", whole)],
    "503-priced": [("", lambda a: failed(503, None)(a) and a.json["usage"]["total_tokens"] == 2000)],
    "close-without-finish": [("", cut("complete", 60))],
    "error-in-200": [
        ("", erring(10, 'data: {"error":{"message":')),
        ("?after=0&status=429", lambda a: a.chunks[-1]["error"]["code"] == "rate_limit_exceeded"),
    ],
    "error-before-first-token": [("", lambda a: a.text == "" and "error" in a.chunks[1] and len(a.chunks) == 2)],
    "heartbeats-only": [("?every=0.05&after=2", lambda a: cut("open", 2)(a) and a.body.count(b": PROCESSING") > 3)],
    "black-hole": [("", cut("open", 1))],
    "usage-oddities": [
        ("", lambda a: whole(a) and usages(a) == [*range(1, 61), 60, 60] and a.chunks[-1]["choices"] == [])
    ],
    "usage-every-chunk": [("", lambda a: whole(a) and usages(a) == [*range(1, 61), 60])],
    "two-finishes": [("", lambda a: (a.text, a.finishes) == (WHOLE, ["stop", "stop"]))],
    "content-filter-finish": [("", lambda a: (a.text, a.finishes) == (lorem.text(10), ["content_filter"]))],
    "hollow": [("", lambda a: (a.text, a.finishes, a.status) == ("", ["stop"], 200))],
    "retry-after-date": [
        ("?key=a", lambda a: 0 <= parsedate_to_datetime(a.headers["retry-after"]).timestamp() - time.time() <= 2.1),
        ("?key=a", whole),
    ],
    "401": [("", failed(401, "invalid_api_key"))],
    "403": [("", failed(403, "permission_denied"))],
    "secret-in-error": [
        ("", lambda a: a.status == 400 and "sk-canary" in a.json["error"]["message"]),
        ("?status=500", lambda a: a.status == 500 and "sk-canary" in a.json["error"]["message"]),
    ],
    "secret-in-event": [("", lambda a: "sk-canary" in a.chunks[-1]["error"]["message"] and a.text == lorem.text(10))],
    "rejects-stream-options": [("", whole)],
    "json-for-stream": [("", document)],
    "stream-for-json": [("", whole)],
    "html": [
        ("", lambda a: (a.status, a.headers["content-type"]) == (200, "text/html") and b"<html>" in a.body),
        ("?status=502", lambda a: a.status == 502),
    ],
    "empty-200": [("", lambda a: (a.status, a.body, a.ended) == (200, b"", "complete"))],
    "empty-stream": [("", lambda a: a.headers["content-type"].startswith("text/event-stream") and a.body == b"")],
    "204": [("", lambda a: (a.status, a.body, a.ended) == (204, b"", "complete"))],
    "redirect": [("", lambda a: a.status == 307 and a.headers["location"]), ("?status=302", lambda a: a.status == 302)],
    "truncated-json": [
        ("", lambda a: (a.text, a.finishes, a.ended) == (WHOLE, [], "complete") and "never" in a.payloads[-1])
    ],
    "garbage-status-line": [("", lambda a: a.ended == "garbage" and a.raw.startswith(b"HTP/1.1 2OO"))],
    "mid-header-stall": [("", lambda a: a.ended == "open" and a.raw.endswith(b"text/event-st"))],
    "huge-head": [("", lambda a: len(a.headers["x-huge"]) == 64 << 10), ("?kib=1", whole)],
    "conflicting-length": [("", lambda a: a.ended == "garbage" and a.raw.count(b"content-length") == 2)],
    "bad-chunk": [("", cut("garbage", 30))],
    "close-delimited": [("", lambda a: a.raw.startswith(b"HTTP/1.0 200") and (a.ended, a.text) == ("eof", WHOLE))],
    "half-close": [("?after=4", cut("eof", 4))],
    "stale-connection": [("", whole)],
    "early-hints": [("", lambda a: whole(a) and a.interim == [103])],
    "100-continue": [("", lambda a: whole(a) and a.interim == [100])],
    "trailers": [("", lambda a: whole(a) and a.trailers == {"x-checksum": "0", "x-cost": "0.1"})],
    "chunk-extensions": [("", raw(b';seen="yes";n=1\r\n'))],
    "slow-body": [("?for=0.3&pieces=5", lambda a: whole(a) and a.pieces == 5 and a.duration_s > 0.23)],
    "byte-at-a-time": [("", lambda a: a.text == lorem.text(8) and a.pieces == len(a.body))],
    "crlf": [("", lambda a: whole(a) and b"\n" not in a.body.replace(b"\r\n", b""))],
    "cr": [("", lambda a: whole(a) and b"\n" not in a.body)],
    "bom": [("", lambda a: whole(a) and a.body.startswith(b"\xef\xbb\xbfdata:"))],
    "no-space": [("", lambda a: whole(a) and b"data: " not in a.body)],
    "comments": [("", lambda a: whole(a) and a.body.count(b": PROCESSING\n\n") == 64)],
    "multi-line-data": [("", lambda a: whole(a) and a.body.count(b'\ndata: "choices"') == 62)],
    "no-last-blank-line": [("", lambda a: whole(a) and a.body.endswith(b"data: [DONE]"))],
    "split-utf8": [("", split_inside_characters)],
    "huge-event": [("", huge(8 << 20)), ("?bytes=1000", huge(1000))],
    "over-huge-event": [("", huge((8 << 20) + 1))],
    "event-error": [("", lambda a: erring(10, 'data: {"error":')(a) and b"\nevent: error\ndata: " in a.body)],
    "error-field": [("", erring(10, 'error: {"message":'))],
    "error-string": [("", erring(10, 'data: {"error":"an internal'))],
    "error-in-chunk": [
        ("", lambda a: erring(10, "data: [DONE]")(a) and a.finishes == ["error"] and "error" in a.chunks[-1])
    ],
    "no-finish-done": [("", lambda a: (a.text, a.finishes, a.payloads[-1]) == (WHOLE, [], "[DONE]"))],
    "after-done": [("", lambda a: a.text == WHOLE and "never" in a.payloads[-2] and a.payloads.count("[DONE]") == 2)],
    "azure-first": [("", lambda a: whole(a) and a.chunks[0]["choices"] == [] and a.chunks[0]["id"] == "")],
    "role-every-chunk": [("", lambda a: whole(a) and a.body.count(b'"role":"assistant"') == 61)],
    "id-changes": [("", lambda a: whole(a) and len({chunk["id"] for chunk in a.chunks}) == 61)],
    "bare-chunks": [
        ("", lambda a: a.text == WHOLE and a.chunks[6] == {"choices": [{"delta": {"content": " consectetur"}}]})
    ],
    "tool-calls": [("", calls(1))],
    "tool-calls-stop": [("", calls(1, "stop"))],
    "parallel-tools": [("", calls(3))],
    "parallel-tools-at-once": [("", calls(3))],
    "args-in-done": [("", lambda a: calls(1)(a) and a.chunks[-1]["choices"][0]["delta"]["tool_calls"])],
    "tool-cut": [("", lambda a: a.ended == "eof" and b"get_weather" in a.body and a.finishes == [])],
}

STAYS_OPEN = {
    ("accept-silence", ""),
    ("stall", ""),
    ("no-done", "?for=9"),
    ("heartbeats-only", "?every=0.05&after=2"),
    ("black-hole", ""),
    ("mid-header-stall", ""),
}


def test_every_fault_is_expected_here() -> None:
    assert set(EXPECTED) == set(FAULTS)
    assert {row.name: row for row in FAULTS.values()} == FAULTS


@pytest.mark.parametrize("name", EXPECTED)
def test_the_fault_looks_like_this_to_a_raw_client(provider_port: int, name: str) -> None:
    for suffix, check in EXPECTED[name]:
        within = 0.4 if (name, suffix) in STAYS_OPEN else 30
        answer = run(ask(provider_port, chat(f"fault/{name}{suffix}"), within))
        assert check(answer), (suffix, answer.status, answer.ended, answer.raw[-600:])


NOT_AS_JSON = {
    "bad-json-event",
    "stream-for-json",
    "close-delimited",
    "content-filter-finish",
    "split-utf8",
    "byte-at-a-time",
}
ORDINARY = sorted(
    row.name
    for row in FAULTS.values()
    if row.survivable and "tool" not in row.name and row.name not in {*NOT_AS_JSON, "args-in-done", "huge-event"}
)


@pytest.mark.parametrize("name", ORDINARY)
def test_oddities_of_streams_leave_other_answers_whole(provider_port: int, name: str) -> None:
    suffix = "?for=0.1" if name == "slow-body" else ""
    assert document(run(ask(provider_port, chat(f"fault/{name}{suffix}", stream=False))))


@pytest.mark.parametrize("name", [name for name in FAULTS if "tool" in name or name == "args-in-done"])
def test_tool_calls_in_one_document(provider_port: int, name: str) -> None:
    answer = run(ask(provider_port, chat(f"fault/{name}", stream=False)))
    choice = answer.json["choices"][0]
    found = [(call["id"], *call["function"].values()) for call in choice["message"]["tool_calls"]]
    assert found == list(CALLS[: 3 if "parallel" in name else 1])
    assert choice["finish_reason"] == "tool_calls"


def no_json(answer: Answer) -> bool:
    try:
        return answer.json is None
    except json.JSONDecodeError:
        return answer.ended == "complete"


def error_document(answer: Answer) -> bool:
    return (answer.status, answer.ended) == (200, "complete") and "error" in answer.json


def half(ended: str) -> Check:
    return lambda a: (a.ended, len(a.body)) == (ended, int(a.headers["content-length"]) // 2)


WHOLE_BUT_STREAMED: dict[str, Check] = {
    "cut": half("eof"),
    "cut?reset=1": half("reset"),
    "stall": half("open"),
    "stall?for=0.1": document,
    "late-first-token": unanswered,
    "late-first-token?after=0.1": document,
    "bad-json-event": no_json,
    "truncated-json": no_json,
    "stream-for-json": whole,
    "close-delimited": lambda a: a.ended == "eof" and a.json["choices"][0]["message"]["content"] == WHOLE,
    "content-filter-finish": lambda a: a.json["choices"][0]["finish_reason"] == "content_filter",
    "split-utf8": lambda a: a.json["choices"][0]["message"]["content"] == UTF8 and a.pieces > 20,
    "byte-at-a-time": lambda a: a.json["usage"]["completion_tokens"] == 8 and a.pieces == len(a.body),
    "hollow": lambda a: a.json["choices"][0]["message"]["content"] == "",
    "error-in-200": error_document,
    "error-before-first-token": error_document,
    "event-error": error_document,
    "error-field": error_document,
    "error-string": error_document,
    "error-in-chunk": error_document,
    "secret-in-event": lambda a: error_document(a) and b"sk-canary" in a.body,
}


@pytest.mark.parametrize("model", WHOLE_BUT_STREAMED)
def test_where_no_stream_was_asked_for(provider_port: int, model: str) -> None:
    within = 0.4 if model in ("stall", "late-first-token") else 30
    answer = run(ask(provider_port, chat(f"fault/{model}", stream=False), within))
    assert WHOLE_BUT_STREAMED[model](answer), (answer.status, answer.ended, answer.raw[-400:])


def test_prefill_is_rejected_by_name_and_gone_on_from_elsewhere(provider_port: int) -> None:
    messages = [*PROMPT, {"role": "assistant", "content": lorem.text(40)}]
    refused = run(ask(provider_port, chat("fault/prefill-rejected", messages=messages)))
    assert failed(400, None, "messages")(refused)
    other = run(ask(provider_port, chat("fault/no-space", messages=messages)))
    assert lorem.text(40) + other.text == WHOLE


def test_stream_options_are_rejected_by_name(provider_port: int) -> None:
    answer = run(ask(provider_port, chat("fault/rejects-stream-options", stream_options={"include_usage": True})))
    assert failed(400, None, "stream_options")(answer)
    assert "stream_options" in answer.json["error"]["message"]


async def _outage() -> None:
    async with serve() as provider:
        model = "fault/outage?for=0.3"
        assert (await ask(provider.port, chat(model))).status == 503
        await asyncio.sleep(0.15)
        assert (await ask(provider.port, chat(model))).status == 503
        await asyncio.sleep(0.2)
        assert (await ask(provider.port, chat(model))).text == WHOLE
        provider.reset()
        assert (await ask(provider.port, chat(model))).status == 503


def test_an_outage_ends_by_itself_and_a_reset_brings_it_back() -> None:
    run(_outage())


async def _black_hole() -> None:
    async with serve() as provider:
        _, writer = await asyncio.open_connection("127.0.0.1", provider.port)
        writer.write(chat("fault/black-hole"))
        await provider.until(lambda p: p.requests)
        await asyncio.sleep(0.1)
        writer.close()
        await asyncio.sleep(0.2)
        assert provider.requests[0].how == ""  # it has not noticed
        assert (await ask(provider.port, chat("echo"))).status == 200


def test_a_black_hole_notices_nothing_and_harms_nobody_else() -> None:
    run(_black_hole())


async def _gone(model: str) -> None:
    async with serve() as provider:
        _, writer = await asyncio.open_connection("127.0.0.1", provider.port)
        writer.write(chat(model))
        await provider.until(lambda p: p.requests)
        await asyncio.sleep(0.05)
        writer.close()
        await provider.until(lambda p: p.requests[0].how == "client_closed", within=120)


@pytest.mark.parametrize(
    "model", ["accept-silence", "late-first-token", "stall", "heartbeats-only", "mid-header-stall"]
)
def test_a_waiting_fault_sees_its_client_leave(model: str) -> None:
    run(_gone(f"fault/{model}"))


async def _stale() -> None:
    async with serve() as provider:
        reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
        writer.write(chat("fault/stale-connection?after=0.1"))
        first = await read(reader)
        assert "connection" not in first.headers and first.ended == "complete"
        assert (await read(reader)).ended == "eof"
        writer.close()


def test_a_stale_connection_says_nothing_before_it_closes() -> None:
    run(_stale())


def test_secrets_are_only_in_the_faults_that_say_so(provider_port: int) -> None:
    for name in ("401", "403", "context-length", "error-in-200"):
        assert b"sk-canary" not in run(ask(provider_port, chat(f"fault/{name}"))).raw


def test_payloads_of_tools_are_json() -> None:
    assert all(json.loads(arguments) for _, _, arguments in CALLS)
