"""Rules of a stream that a transcript cannot show: when something is returned, what is bounded, what is counted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import errors
from headgate.dialects import registry
from headgate.dialects.base import Reply
from headgate.dialects.openai_chat import ChatStream
from headgate.dialects.openai_chat.dialect import BACKEND, CLIENT
from headgate.model import Usage
from tests.dialects.openai_chat.streams import CREATED, IDENT, MODEL, chunk, events, parse, run


def new(usage: bool = False, **options: object) -> ChatStream:
    return ChatStream(Reply(IDENT, CREATED, MODEL, usage, provider="up", **options))  # type: ignore[arg-type]


def test_nothing_is_returned_before_there_is_something_to_see() -> None:
    stream = new()
    assert stream.feed(events(chunk({"role": "assistant", "content": ""}))) == b""
    assert stream.feed(b": ping\n\n" + events(chunk({"content": ""}))) == b""
    assert not stream.visible
    out = stream.feed(events(chunk({"content": "x"})))
    assert stream.visible
    assert [one["choices"][0]["delta"] for one in parse(out)] == [
        {"role": "assistant", "content": ""},
        {"content": "x"},
    ]


def test_valid_chunk_passes_byte_for_byte() -> None:
    stream = new()
    stream.feed(events(chunk({"role": "assistant", "content": "a"})))
    sent = b'{"id": "up-1",  "object": "chat.completion.chunk", "created": 5, "model": "up-model", "choices": [ {"index":0, "delta":{"content":"\\u00e9 \\/"}, "x":1e5, "finish_reason":null} ]}'  # noqa: E501
    ours = sent.replace(b'"up-1"', f'"{IDENT}"'.encode()).replace(b'"created": 5', f'"created": {CREATED}'.encode())
    assert stream.feed(b"data: " + sent + b"\n\n") == b"data: " + ours + b"\n\n"


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@given(texts=st.lists(st.text(max_size=12), max_size=12), raw=st.booleans(), usage=st.booleans(), noise=st.booleans())
def test_text_of_every_kind_arrives_as_it_was(
    separators: tuple[str, str], texts: list[str], raw: bool, usage: bool, noise: bool
) -> None:
    """The same through the spliced and the parsed way: quotes, escapes, control characters, every plane of Unicode."""
    sent = ["start", "go", *(text.encode("utf-8", "replace").decode() for text in texts)]
    payloads = []
    for number, text in enumerate(sent):
        one = chunk({"role": "assistant", "content": text}, **({"obfuscation": "x" * (number % 5)} if noise else {}))
        payloads.append(json.dumps(one, separators=separators, ensure_ascii=not raw))
    out, stream = run([events(payload) for payload in payloads] + [events(chunk({}, "stop"), "[DONE]")], usage=usage)
    got = [one["choices"][0]["delta"].get("content", "") for one in parse(out) if one["choices"]]
    assert "".join(got) == "".join(sent)
    assert stream.events == len(sent) + 2
    assert stream.progress >= 2


@pytest.mark.parametrize(
    "odd",
    [
        {"error": {"message": "broke"}},
        chunk({"content": "x"}, "length"),
        chunk({"content": "x", "role": "assistant"}),
        chunk({"content": "x"}, usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}),
        chunk({"content": "x"}, index=1),
        chunk({"content": "x\n"}),
        chunk({"content": 'x","finish_reason":"stop'}),
        chunk({"content": "x", "tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}),
    ],
)
def test_the_template_hides_nothing(odd: dict[str, object]) -> None:
    compact = [json.dumps(chunk({"content": text}), separators=(",", ":")) for text in "abcdef"]
    payloads = [*compact, json.dumps(odd, separators=(",", ":")), *compact]
    taught, stream = run([events(payload) for payload in payloads])
    untaught, _ = run([events(payload).replace(b"\n\n", b"\r\n\r\n") for payload in payloads])  # never spliced
    assert taught == untaught
    assert stream._template.known or stream.error is not None or stream._choices[0].finish_sent


def test_bad_bytes_in_a_known_chunk_go_the_slow_way() -> None:
    plain = json.dumps(chunk({"content": "a"}), separators=(",", ":")).encode()
    stream = new()
    for _ in range(3):
        stream.feed(b"data: " + plain + b"\n\n")
    assert "a\ufffdb".encode() in stream.feed(b"data: " + plain.replace(b'"a"', b'"a\xffb"') + b"\n\n")
    assert b'"a\\u0009b"' in stream.feed(b"data: " + plain.replace(b'"a"', b'"a\tb"') + b"\n\n")
    assert stream.feed(b"data: " + plain.replace(b'"a"', b'"a\\"') + b"\n\n") == b""
    assert stream.skipped == 1


def test_event_over_the_limit_is_an_error() -> None:
    body = events(chunk({"content": "a"})) + b"data: " + b"x" * 2000
    for pieces in ([body], [body[i : i + 3] for i in range(0, len(body), 3)]):
        stream = new(max_event=1000)
        out = b"".join(stream.feed(piece) for piece in pieces)
        assert len(parse(out)) == 2
        assert stream.error is not None
        assert stream.error.kind is errors.UPSTREAM_TOO_LARGE


def test_what_is_held_back_is_bounded() -> None:
    stream = new()
    for number in range(2000):
        stream.feed(events(chunk({"role": "assistant"}, **{f"key{number}": "v" * 100})))
    assert len(stream.feed(events(chunk({"content": "x"})))) < 10_000


def test_a_cancelled_stream_is_counted_by_what_was_streamed() -> None:
    stream = new(prompt_tokens=11)
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    stream.feed(events(chunk({"content": "a"}, usage=usage)))
    for _ in range(50):
        stream.feed(events(chunk({"content": "word"})))
    assert (stream.used.billed.prompt, stream.used.billed.completion, stream.used.billed.basis) == (9, 51, "estimated")
    assert stream.progress == 51


def test_comments_are_no_progress_of_the_upstream() -> None:
    stream = new()
    stream.feed(b": ping\n\n" * 5)
    assert stream.events == 0
    stream.feed(events(chunk({"content": "a"})))
    assert stream.events == 1


def test_the_metadata_goes_into_the_usage_chunk_only() -> None:
    for usage in (True, False):
        stream = new(usage)
        stream.feed(events(chunk({"content": "a"}, "stop"), "[DONE]"))
        last = parse(stream.tail(Usage(), b'{"provider":"up"}'))
        assert [one.get("headgate") for one in last] == ([None, {"provider": "up"}] if usage else [None])


def test_secrets_do_not_leave_in_an_error_event() -> None:
    stream = new(secrets=("canary-1234",))
    stream.feed(events(chunk({"content": "a"}), {"error": {"message": "bad canary-1234 and sk-live-abcdef"}}))
    assert b"canary" not in stream.tail(Usage())
    assert b"sk-live" not in stream.tail(Usage())


def test_the_same_api_on_both_sides_passes_through() -> None:
    reply = Reply(IDENT, CREATED, MODEL, provider="up")
    assert isinstance(registry.open_stream(CLIENT, BACKEND, reply), ChatStream)


@pytest.mark.parametrize("ends", [0, 1])
def test_an_answer_of_two_that_never_came_is_a_cut(ends: int) -> None:
    """Without ``[DONE]`` only the request tells how many there should have been."""
    first = [chunk({"content": "a"}), chunk({}, "stop")]
    second = [chunk({"content": "b"}, index=1), chunk({}, "stop", index=1)]
    out, stream = run([events(*first, *second[: 2 * ends])], choices=2)
    assert (stream.error is None) == stream.done == bool(ends)
    assert out.endswith(b"data: [DONE]\n\n") == bool(ends)
