"""Hooks on real sockets: what the provider is asked, what the client gets, and what becomes of a hook that fails."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate.model import Alias, Closed, Grant, HookSettings, ModelRow, Price, Provider, Snapshot, TargetRef
from headgate.policy.auth import digest
from headgate.testing.provider.scripted import Script, ScriptedUpstream
from tests.dataplane import TOKEN, DataPlane, post
from tests.dialects.anthropic_messages.streams import block, delta, end, events, start, stop
from tests.dialects.anthropic_messages.streams import text as messages_text
from tests.hooks.installed import VARIABLE, HookedPlane, install
from tests.serving.apis import APIS, CHAT, MESSAGES
from tests.serving.calls import (
    STREAM_HEAD,
    Answer,
    chunk_event,
    chunked,
    document,
    events_of,
    last_closed,
    opened,
    whole_json,
    whole_stream,
)
from tests.serving.calls import scripted_in_thread as running
from tests.serving.test_api_pairs import ask, asked, cut, read
from tests.serving.test_failed_attempts import KEY

SECRET = "sk-proj-abcdefghijklmnopqrstuvwx12345"
MASKED = "[masked: API key]"
MASK = (HookSettings("mask-secrets"), HookSettings("mask-personal"))

OWN = '''
import time

from headgate.hooks.api import HookRefusal


class Base:
    window = 16

    def __init__(self, options):
        self.options = options


class Slow(Base):
    """Uses more CPU than it may."""

    def on_request(self, request):
        begun = time.thread_time()
        while time.thread_time() - begun < 0.05:
            pass
        request.rewrite(lambda text: "changed too late")


class Raising(Base):
    def on_request(self, request):
        request.rewrite(lambda text: "changed, then failed")
        raise KeyError("what it looked at")


class Odd(Base):
    """Puts into the request what is none."""

    def on_request(self, request):
        request.put("messages", [])


class Breaking(Base):
    """Masks nothing, and fails in the middle of an answer."""

    def mask(self, channel):
        return self

    def scan(self, text, last):
        if "bomb" in text:
            raise ValueError(text)
        return text, len(text)


class Refusing(Breaking):
    def scan(self, text, last):
        if "bomb" in text:
            raise HookRefusal("a bomb")
        return text, len(text)


class Holding(Breaking):
    """Holds all that it is given."""

    def scan(self, text, last):
        return (text.upper(), len(text)) if last else ("", 0)


class Observing(Base):
    def on_receipt(self, summary):
        with open(self.options["file"], "a") as file:
            acted = ",".join(summary.hooks)
            print(summary.outcome, summary.status, summary.code, acted, summary.completion_tokens, file=file)
        raise OSError("nobody hears of it")
'''  # fmt: skip
NAMES = ("Slow", "Raising", "Odd", "Breaking", "Refusing", "Holding", "Observing")


@contextlib.contextmanager
def hooked(
    state: Path, hooks: tuple[HookSettings, ...], *upstreams: tuple[str, list[Script]]
) -> Iterator[tuple[DataPlane, list[ScriptedUpstream]]]:
    """An alias ``chain`` over providers p0, p1, …, behind hooks."""
    with contextlib.ExitStack() as stack:
        ups = [stack.enter_context(running(*scripts)) for _, scripts in upstreams]
        row = ModelRow("m", upstream_model="m-up", price=Price(1_000_000_000, 2_000_000_000), prefill="trailing",
                       prefill_trims="no")  # fmt: skip
        providers = {
            f"p{i}": Provider(f"p{i}", up.url, dialect=backend, auth="none", models={"m": row})
            for i, (up, (backend, _)) in enumerate(zip(ups, upstreams, strict=True))
        }
        world = Snapshot(
            tokens={digest(KEY, TOKEN.encode()): Grant("t0", "test")},
            providers=providers,
            aliases={"chain": Alias("chain", tuple(TargetRef(f"{name}/m") for name in providers))},
        )
        state.mkdir(exist_ok=True)
        (state / "instance.key").write_bytes(KEY)
        yield stack.enter_context(HookedPlane(state, snapshot=world, hooks=hooks)), ups


def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install(tmp_path / "installed", OWN, **{name.lower(): name for name in NAMES})
    monkeypatch.setenv(VARIABLE, str(folder))


def says(backend: str, *said: str) -> Script:
    return [("expect_request",), ("send", whole_stream(APIS[backend].stream(*said), b"connection: close"))]


def saying(client: str, text: str) -> dict[str, Any]:
    return {APIS[client].messages: [APIS[client].turn(text)]}


# ------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("client", APIS)
@pytest.mark.parametrize("backend", APIS)
def test_values_in_several_deltas_are_masked(tmp_path: Path, client: str, backend: str, stream: bool) -> None:
    said = ["Use sk-pr", *SECRET[5:], ", mail a", "@exam", "ple.org. Bye"]
    # Some providers stream whether they are asked to or not: a whole answer is made of that, too
    with hooked(tmp_path / "s", MASK, (backend, [says(backend, *said)])) as (plane, _):
        found = read(client, ask(plane, client, stream), stream)
        plane.wait_for(Closed)
        record = last_closed(plane)
    assert found.text == f"Use {MASKED}, mail [masked: e-mail address]. Bye"
    assert found.usage == (18, 5, 4) and record.completion_tokens == 4  # the provider's


def test_tokens_are_estimated_behind_hooks(tmp_path: Path) -> None:
    """The request would reach the provider as it came."""
    body = {"model": "chain", **saying(MESSAGES, f"Use {SECRET}.")}
    with hooked(tmp_path / "s", MASK, (MESSAGES, [says(MESSAGES, "Hi")])) as (plane, (upstream,)):
        with opened(plane, post("/v1/messages/count_tokens", json.dumps(body).encode())) as one:
            answer = one.rest()
        assert upstream.requests == []
    assert answer.headers["x-headgate-counted-by"] == "estimate" and answer.json["input_tokens"] > 0


@pytest.mark.parametrize("client", APIS)
def test_whole_answers_are_masked(tmp_path: Path, client: str) -> None:
    body = whole_json(document(f"Use {SECRET}."), b"connection: close")
    with hooked(tmp_path / "s", MASK, (CHAT, [[("expect_request",), ("send", body)]])) as (plane, _):
        found = read(client, ask(plane, client, False), False)
    assert found.text == f"Use {MASKED}."


@pytest.mark.parametrize(("client", "backend"), [(CHAT, CHAT), (MESSAGES, MESSAGES)])
def test_stream_cut_at_every_byte(tmp_path: Path, client: str, backend: str) -> None:
    """Each script sends the same stream in two TCP segments, cut one byte later."""
    data = APIS[backend].stream("Use " + SECRET[:20], SECRET[20:] + ".")
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    begin = data.index(b"Use ") - 30
    places = range(begin, data.index(SECRET[20:].encode()) + 40)
    scripts: list[Script] = [
        [("expect_request",), ("send", head % len(data) + data[:at]), ("wait", 0.002), ("send", data[at:])]
        for at in places
    ]
    with hooked(tmp_path / "s", MASK, (backend, scripts)) as (plane, _):
        for at in places:
            answer = ask(plane, client, True)
            assert read(client, answer, True).text == f"Use {MASKED}.", at
            assert b"abcdefgh" not in answer.raw


def test_tool_calls_and_reasoning_are_masked(tmp_path: Path) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "send", "arguments": ""}}
    parts = ['{"key": "sk-pr', SECRET[5:], '", "card": 4111', "1111", "11111111}"]
    data = b"".join(
        (
            chunk_event({"role": "assistant", "content": ""}),
            chunk_event({"reasoning_content": "It is " + SECRET[:10]}),
            chunk_event({"reasoning_content": SECRET[10:]}),
            chunk_event({"content": "I send sk-"}),
            chunk_event({"tool_calls": [call]}),
            *(chunk_event({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}) for part in parts),
            chunk_event({}, "tool_calls"),
            b"data: [DONE]\n\n",
        )
    )
    script: Script = [("expect_request",), ("send", whole_stream(data, b"connection: close"))]
    with hooked(tmp_path / "s", MASK, (CHAT, [script])) as (plane, _):
        answer = ask(plane, CHAT, True)
    deltas = [choice["delta"] for chunk in answer.chunks for choice in chunk["choices"]]
    assert "".join(one.get("reasoning_content") or "" for one in deltas) == f"It is {MASKED}"
    assert answer.text == "I send sk-"  # given out at the tool call
    calls = [one for delta in deltas for one in delta.get("tool_calls", ())]
    arguments = json.loads("".join(one["function"]["arguments"] for one in calls))
    assert arguments == {"key": MASKED, "card": 9999999999999999}
    texts = [i for i, one in enumerate(deltas) if one.get("content")]
    assert max(texts) < min(i for i, one in enumerate(deltas) if one.get("tool_calls"))


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_structured_answer_remains_json(tmp_path: Path, stream: bool) -> None:
    said = ['{"card": 41111111', "11111111}"]
    with hooked(tmp_path / "s", MASK, (CHAT, [says(CHAT, *said)])) as (plane, _):
        answer = ask(plane, CHAT, stream, response_format={"type": "json_object"})
    assert json.loads(read(CHAT, answer, stream).text) == {"card": 9999999999999999}


def test_signature_of_changed_reasoning_is_left_out(tmp_path: Path) -> None:
    data = events(
        start(),
        block(0, type="thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking=f"Is it {SECRET}?"),
        delta(0, "signature_delta", signature="c2ln"),
        stop(0),
        block(1, type="text", text=""),
        messages_text(1, "Yes."),
        stop(1),
        end("end_turn"),
        {"type": "message_stop"},
    )
    script: Script = [("expect_request",), ("send", whole_stream(data, b"connection: close"))]
    with hooked(tmp_path / "s", MASK, (MESSAGES, [script])) as (plane, _):
        raw = ask(plane, MESSAGES, True).raw
    assert f"Is it {MASKED}?".encode() in raw and b"c2ln" not in raw and b"Yes." in raw


@pytest.mark.parametrize("client", APIS)
def test_continuation_goes_on_with_what_the_model_wrote(tmp_path: Path, client: str) -> None:
    first = cut(CHAT, "Use ", SECRET[:16])
    second = says(CHAT, SECRET[16:], ", all of it.")
    with hooked(tmp_path / "s", MASK, (CHAT, [first]), (CHAT, [second])) as (plane, (_, other)):
        answer = ask(plane, client, True)
    assert read(client, answer, True).text == f"Use {MASKED}, all of it."
    (request,) = asked(other)
    assert request["messages"][-1] == {"role": "assistant", "content": f"Use {SECRET[:16]}"}


def test_resumed_stream_holds_masked_bytes_only(tmp_path: Path) -> None:
    with hooked(tmp_path / "s", MASK, (CHAT, [says(CHAT, "Use " + SECRET[:9], SECRET[9:] + ".")])) as (plane, _):
        answer = ask(plane, CHAT, True, headgate={"resumable_s": 30})
        ident = answer.headers["x-headgate-stream-id"]
        with plane.connect() as sock:
            field = f"Authorization: Bearer {TOKEN}\r\nConnection: close\r\n"
            sock.sendall(f"GET /v1/streams/{ident} HTTP/1.1\r\nHost: t\r\n{field}\r\n".encode())
            again = b""
            while piece := sock.recv(65536):
                again += piece
    assert MASKED.encode() in again and b"abcdefgh" not in again


def test_held_text_leaves_before_an_error(tmp_path: Path) -> None:
    with hooked(tmp_path / "s", MASK, (CHAT, [cut(CHAT, "Use ", "sk-")])) as (plane, _):
        answer = ask(plane, CHAT, True, headgate={"on_midstream_failure": "error", "retries": 0})
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in answer.events[:-1]) == "Use sk-"
    answer.check_truncated("upstream_cut")


# ------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize("client", APIS)
@pytest.mark.parametrize("backend", APIS)
def test_requests_are_masked(tmp_path: Path, client: str, backend: str) -> None:
    with hooked(tmp_path / "s", MASK, (backend, [says(backend, "Fine.")])) as (plane, (upstream,)):
        answer = ask(plane, client, True, **saying(client, f"My key is {SECRET}, é."), include_route_trace=True)
        assert read(client, answer, True).text == "Fine."
    (request,) = asked(upstream)
    conversation, most, _ = APIS[backend].asked(request)
    assert conversation[0]["content"] == f"My key is {MASKED}, é." and most == 50
    assert b'"hooks":["mask-secrets"]' in answer.raw


def test_unchanged_request_stays_as_it_is(tmp_path: Path) -> None:
    """A signature of thinking is bound to the bytes of the conversation; only its maker's name is taken off."""
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "hg1:p0:c2ln"}
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "Hello"}]},
        {"role": "user", "content": "On"},
    ]
    with hooked(tmp_path / "s", MASK, (MESSAGES, [says(MESSAGES, "Fine.")])) as (plane, (upstream,)):
        ask(plane, MESSAGES, True, messages=turns)
    (request,) = asked(upstream)
    thought["signature"] = "c2ln"
    assert request["messages"] == turns


@pytest.mark.parametrize("client", APIS)
def test_requests_are_refused(tmp_path: Path, client: str) -> None:
    refuse = HookSettings("mask-personal", {"on_request": "refuse", "on_answer": "off"})
    with hooked(tmp_path / "s", (refuse,), (CHAT, [says(CHAT, "Fine.")])) as (plane, (upstream,)):
        refused = ask(plane, client, True, **saying(client, "Write to bob@example.org"))
        plane.wait_for(Closed)
        record = last_closed(plane)
        assert read(client, ask(plane, client, True, **saying(client, "Write to Bob")), True).text == "Fine."
    assert refused.status == 400 and len(upstream.requests) == 1
    error = APIS[client].fault(refused.json)
    assert error["message"] == "The hook mask-personal refused this request: it contains an e-mail address."
    assert (record.outcome, record.code) == ("refused", "hook_refused")
    if client == CHAT:
        assert error["code"] == "hook_refused"


@pytest.mark.parametrize(("name", "value"), [("n", 2), ("logprobs", True), ("audio", {"voice": "a", "format": "wav"})])
def test_masked_answers_refuse_what_they_cannot_have(tmp_path: Path, name: str, value: Any) -> None:
    with hooked(tmp_path / "s", MASK, (CHAT, [says(CHAT, "Fine.")])) as (plane, _):
        refused = ask(plane, CHAT, True, **{name: value})
    assert (refused.status, refused.error["code"], refused.error["param"]) == (400, "unsupported_option", name)


# ------------------------------------------------------------------------------------- hooks that fail


@pytest.mark.parametrize("name", ["slow", "raising", "odd"])
def test_failing_hook_on_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    own(tmp_path, monkeypatch)
    with hooked(tmp_path / "s", (HookSettings(name),), (CHAT, [says(CHAT, "Fine.")])) as (plane, (upstream,)):
        refused = ask(plane, CHAT, True)
        assert (refused.status, refused.error["code"]) == (500, "hook_failed")
        assert name in refused.error["message"] and not upstream.requests
    with hooked(tmp_path / "t", (HookSettings(name, on_error="pass"),), (CHAT, [says(CHAT, "Fine.")])) as (plane, ups):
        ask(plane, CHAT, True).check_stream("Fine.")
    (request,) = asked(ups[0])
    assert request["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(("name", "code"), [("breaking", "hook_failed"), ("refusing", "hook_refused")])
def test_failing_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> None:
    own(tmp_path, monkeypatch)
    body = whole_json(document("a bomb"), b"connection: close")
    data = APIS[CHAT].stream("One ", "bomb ", "two")
    at = data.index(b"data", data.index(b"One "))
    script: Script = [
        ("expect_request",), ("send", STREAM_HEAD + chunked(data[:at])), ("wait", 0.2), ("send", chunked(data[at:])),
        ("expect_close",),
    ]  # fmt: skip
    scripts: list[Script] = [script, [("expect_request",), ("send", body)]]
    upstreams = (CHAT, scripts), (CHAT, [says(CHAT, "Another answer")])
    with hooked(tmp_path / "s", (HookSettings(name),), *upstreams) as (plane, (upstream, other)):
        answer = ask(plane, CHAT, True)
        answer.check_truncated(code)
        assert b"One " in answer.raw and b"bomb " not in answer.raw.partition(b'"error"')[0]
        whole_one = ask(plane, CHAT, False)
        assert whole_one.error["code"] == code and len(upstream.requests) == 2
        assert not other.requests
        records = plane.wait_for(Closed, 2)
    assert [len(record.attempts) for record in records if isinstance(record, Closed)] == [1, 1]


def test_failing_mask_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own(tmp_path, monkeypatch)
    hooks = (HookSettings("breaking", on_error="pass"), HookSettings("mask-secrets"))
    with hooked(tmp_path / "s", hooks, (CHAT, [says(CHAT, "One ", "bomb ", SECRET)])) as (plane, _):
        ask(plane, CHAT, True).check_stream(f"One bomb {MASKED}")


def test_mask_cannot_hold_more_than_its_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own(tmp_path, monkeypatch)
    head = STREAM_HEAD + chunked(chunk_event({"role": "assistant", "content": ""}))
    script: Script = [("expect_request",), ("send", head + chunked(chunk_event({"content": "seventeen letters"}))),
                      ("wait", 30)]  # fmt: skip
    with hooked(tmp_path / "s", (HookSettings("holding"),), (CHAT, [script])) as (plane, _), plane.connect() as sock:
        body = json.dumps({"model": "chain", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}).encode()
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
            % (TOKEN.encode(), len(body), body)
        )
        found = b""
        while b"SEVENTEEN LETTERS" not in found:
            piece = sock.recv(65536)
            assert piece
            found += piece


def test_hooks_see_the_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own(tmp_path, monkeypatch)
    file = tmp_path / "seen"
    hooks = (*MASK, HookSettings("observing", {"file": str(file)}))
    with hooked(tmp_path / "s", hooks, (CHAT, [says(CHAT, "Use ", SECRET)])) as (plane, _):
        assert MASKED in ask(plane, CHAT, True).text
        assert ask(plane, CHAT, True, messages=[]).status == 400
        plane.wait_for(Closed, 2)
    assert file.read_text().splitlines() == [
        "delivered 200  mask-secrets 4",
        "refused 400 invalid_value  0",
    ]


def test_stream_without_matches_is_unchanged_by_hooks(tmp_path: Path) -> None:
    """A stream without a value is what it would be without hooks: the same events, apart from their cuts."""
    with hooked(tmp_path / "s", MASK, (CHAT, [says(CHAT, "Hello ", "world.")])) as (plane, _):
        answer: Answer = ask(plane, CHAT, True)
    answer.check_stream("Hello world.")
    assert events_of(answer.raw)[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
