"""The event stream codec against the standard, and against every way a network can cut its bytes."""

from __future__ import annotations

import base64
import json
import random
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.sse import Decoder, Event, comment, encode
from tests.paths import SHARED

CASES_FILE = SHARED / "sse_cases.json"


def load_cases() -> list[Any]:
    if not CASES_FILE.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason="this file of ../shared is absent: sse_cases.json"))]
    cases = json.loads(CASES_FILE.read_text())["cases"]
    return [pytest.param(case, id=f"{number}-{case['name']}"[:60]) for number, case in enumerate(cases)]


def standard(events: list[Event]) -> list[dict[str, str]]:
    """What a standard parser would have reported."""
    return [
        {
            "event": event.name.decode(errors="replace") or "message",
            "data": event.data.decode(errors="replace"),
            "id": event.id.decode(errors="replace"),
        }
        for event in events
        if event.data or not event.error
    ]


def feed(chunks: list[bytes]) -> list[Event]:
    decoder = Decoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def split(body: bytes, seed: int) -> list[bytes]:
    dice = random.Random(seed)
    cuts = sorted(dice.randrange(len(body) + 1) for _ in range(dice.randrange(1, 12)))
    return [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]


@pytest.mark.parametrize("case", load_cases())
def test_standard_cases(case: dict[str, Any]) -> None:
    chunks = [base64.b64decode(chunk) for chunk in case["chunks_b64"]]
    body = b"".join(chunks)
    expected = case["events"]
    assert standard(feed(chunks)) == expected
    assert standard(feed([body])) == expected
    assert standard(feed([body[i : i + 1] for i in range(len(body))])) == expected
    for seed in range(50):
        assert standard(feed(split(body, seed))) == expected


FRAGMENTS = [
    b"data: a", b"data:b", b"data", b"data:  c", b"event: e", b"event:", b"id: 1", b"id: a\0b", b"retry: 5", b": x",
    b"error: boom", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\xef\xbb\xbf", "é😀".encode(), b"\xff",
    b"\xe2\x80\xa8", b"\0", b":",
]  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=30), st.lists(st.integers(0, 400), max_size=20))
def test_any_split_gives_the_same_events(fragments: list[bytes], cuts: list[int]) -> None:
    body = b"".join(fragments)
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[a:b] for a, b in pairwise(edges)]
    whole, cut, bytewise = Decoder(), Decoder(), Decoder()
    expected = whole.feed(body)
    assert [event for piece in pieces for event in cut.feed(piece)] == expected
    assert [event for i in range(len(body)) for event in bytewise.feed(body[i : i + 1])] == expected
    last = whole.close()
    assert cut.close() == last == bytewise.close()
    assert cut.retry == whole.retry


def test_close_gives_the_event_that_the_body_left_unfinished() -> None:
    for body in (b"data: a\n\ndata: b", b"data: a\n\ndata: b\n", b"data: a\r\n\r\ndata: b\r"):
        decoder = Decoder()
        assert [event.data for event in decoder.feed(body)] == [b"a"]
        assert [event.data for event in decoder.close()] == [b"b"]
        assert decoder.close() == []
    decoder = Decoder()
    decoder.feed(b"data: a\n\n: only a comment")
    assert decoder.close() == []


def test_an_error_field_is_seen() -> None:
    decoder = Decoder()
    assert decoder.feed(b'error: {"detail":"x"}\n\ndata: y\n\n') == [
        Event(b"", error=b'{"detail":"x"}'),
        Event(b"y"),
    ]


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_event_over_the_limit_ends_the_stream(step: int) -> None:
    body = b"data: fits\n\n" + b"data: " + b"x" * 200 + b"\n\ndata: never\n\n"
    decoder = Decoder(max_event=100)
    events = [event for at in range(0, len(body), step) for event in decoder.feed(body[at : at + step])]
    assert [event.data for event in events] == [b"fits"]
    assert decoder.overflowed
    assert decoder.feed(b"data: late\n\n") == decoder.close() == []


def test_line_over_the_limit_ends_the_stream() -> None:
    decoder = Decoder(max_event=20)
    assert decoder.feed(b"data: " + b"z" * 40 + b"\n") == []
    assert decoder.overflowed and not decoder.fresh
    assert decoder.feed(b"data: after\n\n") == decoder.close() == []


@pytest.mark.parametrize("step", [1, 5, 10_000])
def test_many_small_lines_of_one_event_count_together(step: int) -> None:
    body = b"data: ok\n\n" + b"data:\n" * 200 + b"\n"
    decoder = Decoder(max_event=100)
    events = [event for at in range(0, len(body), step) for event in decoder.feed(body[at : at + step])]
    assert [event.data for event in events] == [b"ok"]
    assert decoder.overflowed


def test_event_of_exactly_the_limit_passes() -> None:
    body = b"data: " + b"x" * 94 + b"\n\n"
    for step in (1, len(body)):
        decoder = Decoder(max_event=100)
        events = [event for at in range(0, len(body), step) for event in decoder.feed(body[at : at + step])]
        assert len(events) == 1
        assert not decoder.overflowed


def test_large_events_in_small_pieces_take_linear_time() -> None:
    def cost(size: int) -> float:
        body = b"data: " + b"x" * size + b"\n\n"
        decoder = Decoder(max_event=16 << 20)
        began = time.thread_time()
        events = [event for at in range(0, len(body), 512) for event in decoder.feed(body[at : at + 512])]
        assert len(events[0].data) == size
        return time.thread_time() - began

    cost(1 << 18)
    small = min(cost(1 << 20) for _ in range(3))
    assert min(cost(8 << 20) for _ in range(2)) < 8 * small * 4  # 64 times, if each piece cost what came before it


def test_encode_gives_back_what_decode_took() -> None:
    wire = encode(b"one\ntwo", event=b"e", id=b"s.1") + comment(b"keep-alive") + encode(b"three")
    assert wire == b"id: s.1\nevent: e\ndata: one\ndata: two\n\n: keep-alive\n\ndata: three\n\n"
    assert Decoder().feed(wire) == [Event(b"one\ntwo", b"e", b"s.1"), Event(b"three", b"", b"s.1")]
