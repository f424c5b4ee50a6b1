"""The ring and the rules of resumption, without sockets."""

from __future__ import annotations

import tracemalloc
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import GatewayError
from headgate.model import NO_ALIAS, Alias, Options
from headgate.policy import on_disconnect
from headgate.policy.on_disconnect import GRACE_S, OnDisconnect
from headgate.serving.replay.ring import HEADER, WORTH, EventMemory, Ring, _common
from headgate.testing.opcodes import opcodes
from headgate.wire.http import Request

BEGIN = (
    'data: {"id":"chatcmpl-1a1feac75d356feaf9000001","object":"chat.completion.chunk","created":1795274977,'
    '"model":"some-model","choices":[{"index":0,"delta":'
)
CHUNKS = st.tuples(
    st.sampled_from(["", '"', "content", '{"role":"assistant","content":"']),
    st.text(alphabet='ab "\\{}é', max_size=20),
    st.sampled_from(["", '"', '"},"finish_reason":null}]}', '"},"finish_reason":"stop"}]}' + "," * 90]),
).map(lambda parts: (BEGIN + "".join(parts)).encode() + b"\n\n")
ALL = 1 << 30
EVENTS = st.lists(
    st.one_of(CHUNKS, st.binary(min_size=1, max_size=40).map(lambda b: b"data: " + b.hex().encode() + b"\n\n")),
    min_size=1,
)


@given(st.lists(EVENTS, max_size=12), st.integers(1, 2000), st.integers(1, 3000), st.data())
def test_a_ring_is_the_end_of_what_was_sent(
    writes: list[list[bytes]], most: int, room: int, data: st.DataObject
) -> None:
    memory, own = EventMemory(room), EventMemory(1 << 20)
    ring, other, alone = Ring("s", most, memory), Ring("o", 10_000, memory), Ring("s", most, own)
    sent: list[bytes] = []
    for write in writes:
        events = ring.add(b"".join(write))
        expected = [b"id: s.%d\n%b" % (len(sent) + n, event) for n, event in enumerate(write, 1)]
        assert events == b"".join(expected)
        sent += expected
        other.add(b"data: x\n\n")
        assert alone.add(b"".join(write)) == events
        assert everything(alone, alone.first - 1) == b"".join(sent[alone.first - 1 :])
        assert own.used <= most and memory.used <= room
        after = data.draw(st.integers(0, len(sent)))
        missed = everything(ring, after)
        assert (missed is None) == (after + 1 < ring.first)
        assert missed is None or missed == b"".join(sent[after:])
        size = sum(len(event) + HEADER for event in sent)
        if (ring.first > 1 and size <= min(most, room // 2)) or (alone.first > 1 and size <= most):
            raise AssertionError("something was dropped that had room")
    assert everything(ring, ring.first - 1) == b"".join(sent[ring.first - 1 :])
    ring.clear()
    other.clear()
    assert memory.used == 0 and (not sent or ring.since(0, 1) is None)


def everything(ring: Ring, number: int, most: int = 300) -> bytes | None:
    """What a reader has that has missed all behind ``number`` and takes it piece by piece."""
    found = b""
    while (missed := ring.since(number, most)) is not None:
        events, number = missed
        assert len(events) < most + 400
        found += events
        if number == ring.last:
            return found
    return None


def chunk(text: str, field: str = "content") -> bytes:
    return f'{BEGIN}{{"{field}":"{text}"}},"finish_reason":null}}]}}\n\n'.encode()


def test_what_all_chunks_share_is_kept_once() -> None:
    """A minute of a fast model fits, and of one that thinks first."""
    memory = EventMemory(1 << 20)
    ring = Ring("chatcmpl-1a1feac75d356feaf9000001", 256 << 10, memory)
    words = ["The", " the", " that", r" \"th", r" \"", " a", " a", "", r" caf\u00e9", "té"]
    sent = [ring.add(chunk(words[n % 10], "reasoning_content")) for n in range(500)]
    sent += [ring.add(chunk(words[n % 10])) for n in range(3000)]
    assert ring.first == 1 and ring.since(0, ALL) == (b"".join(sent), 3500)
    assert ring.since(1234, 1000) == (b"".join(sent[1234:1239]), 1239) and ring.since(3499, 1) == (sent[-1], 3500)


def test_a_full_memory_costs_each_stream_its_own_oldest_events() -> None:
    memory = EventMemory(1200)
    one, two = Ring("a", 10_000, memory), Ring("b", 10_000, memory)
    for _ in range(10):
        one.add(b"data: x\n\n")
    assert two.add(b"data: y\n\n") == b"id: b.1\ndata: y\n\n"
    before = one.first
    for _ in range(100):
        two.add(b"data: y\n\n")
        assert memory.used <= 1200
    assert one.first == before and two.since(two.last, ALL) == (b"", two.last) and two.last == 101


def provider_chunk(text: str, field: str, extra: str) -> bytes:
    """With what some providers put into every chunk: search results, citations, the prompt's filter results."""
    return f'{BEGIN}{{"{field}":"{text}"}},"finish_reason":null}}],"search_results":"{extra}"}}\n\n'.encode()


@pytest.mark.parametrize("size", [100, 3000, 20_000, 400_000])
def test_what_is_accounted_is_what_is_held(size: int) -> None:
    """Of large events that are alike, too, whatever changes in what they share."""
    memory = EventMemory(64 << 20)
    ring = Ring("s", 256 << 10, memory)
    tracemalloc.start()
    try:
        for change in range(14):
            for word in range(3):
                ring.add(provider_chunk(str(word), f"k{change}", str(change % 10) * size))
                assert memory.used <= 256 << 10
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < memory.used * 1.2 + (8 << 10), (held, memory.used)  # beside them: what WEIGHT stands for
    assert size == 400_000 or ring.first < ring.last
    ring.clear()
    assert memory.used == 0


def test_large_events_are_not_compared_for_long() -> None:
    """On the loop, where every other stream waits for it."""

    def cost(size: int) -> int:
        ring = Ring("s", 256 << 10, EventMemory(64 << 20))
        events = [provider_chunk(word, "content", "y" * size) for word in ("one", "two", "three")]
        return opcodes(lambda: [ring.add(event) for event in events])

    assert cost(2_000_000) < 2 * cost(20_000)


PIECES = st.text(alphabet='ab"', max_size=60).map(str.encode)


@given(PIECES, PIECES, PIECES, PIECES)
def test_what_two_events_share(head: bytes, one: bytes, other: bytes, foot: bytes) -> None:
    """As byte by byte, which would hold the loop up."""
    one, other = head + one + foot, head + other + foot
    start = one.rfind(b'"', 0, _prefix(one, other)) + 1
    end = _prefix(one[start:][::-1], other[start:][::-1])
    mark = one.find(b'"', len(one) - end)
    shared = one[:start], one[mark:] if end and mark >= 0 else b""
    expected = shared if len(shared[0]) + len(shared[1]) >= WORTH and one != other else None
    assert _common(one, other) == expected


def _prefix(one: bytes, other: bytes) -> int:
    return next(
        (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )


ALIAS = st.builds(
    Alias,
    st.just("a"),
    on_disconnect=st.sampled_from(["cancel", "drain", "detach"]),
    resumable_s=st.sampled_from([0.0, 30.0]),
    drain_s=st.just(9.0),
    drain_tokens=st.just(99),
)
OPTIONS = st.builds(
    Options,
    on_disconnect=st.sampled_from([None, "cancel", "drain", "detach"]),
    resumable_s=st.sampled_from([None, 0.0, 5.0]),
)


@given(OPTIONS, ALIAS, st.booleans(), st.booleans())
def test_conduct(options: Options, alias: Alias, stream: bool, keyed: bool) -> None:
    found = on_disconnect.decide(options, alias, stream=stream, keyed=keyed)
    if options.on_disconnect == "cancel":
        assert found.grace == 0
    if options.on_disconnect == "drain":
        assert (found.grace, found.tokens) == (9.0, 99)
    if options.resumable_s is not None and options.on_disconnect in (None, "detach") and (stream or keyed):
        assert found.grace in (options.resumable_s, 9.0) and (
            found.grace == options.resumable_s or not found.resumable or keyed
        )
    if not stream:
        assert not found.resumable
    if keyed and stream:
        assert found.resumable
    drains = (options.on_disconnect or alias.on_disconnect) == "drain"
    if found.resumable and not keyed:
        assert found.grace > 0 and (found.tokens == inf or drains)


def test_what_conduct_means_by_default() -> None:
    assert on_disconnect.decide(Options(), NO_ALIAS, stream=True, keyed=False) == OnDisconnect()
    assert on_disconnect.decide(Options(), NO_ALIAS, stream=True, keyed=True) == OnDisconnect(True, GRACE_S)
    assert on_disconnect.decide(Options(), NO_ALIAS, stream=False, keyed=True) == OnDisconnect(False, GRACE_S)
    assert on_disconnect.decide(Options(resumable_s=7), NO_ALIAS, stream=True, keyed=False) == OnDisconnect(True, 7)
    assert on_disconnect.decide(Options(resumable_s=7), NO_ALIAS, stream=False, keyed=False) == OnDisconnect()
    drained = Alias("a", on_disconnect="drain", drain_s=9, drain_tokens=99)  # an alias that has said something
    assert on_disconnect.decide(Options(), drained, stream=True, keyed=True) == OnDisconnect(True, 9, 99)
    assert on_disconnect.decide(Options(resumable_s=7), drained, stream=True, keyed=False) == OnDisconnect(True, 7)
    both = Alias("a", on_disconnect="drain", resumable_s=30, drain_s=9, drain_tokens=99)
    assert on_disconnect.decide(Options(), both, stream=True, keyed=False) == OnDisconnect(True, 9, 99)


def _request(body: bytes = b"{}", path: bytes = b"/v1/chat/completions", query: bytes = b"") -> Request:
    return Request(b"POST", path, query, {}, body, "1.1", True, 0.0)


def test_fingerprints_differ_where_requests_do() -> None:
    requests = [_request(), _request(b"{} "), _request(query=b"a"), _request(path=b"/x"), _request(b"\0{}", query=b"")]
    assert len({on_disconnect.fingerprint(request) for request in requests}) == len(requests)
    assert on_disconnect.fingerprint(_request()) == on_disconnect.fingerprint(_request())


@pytest.mark.parametrize("bad", [b"", b"3", b"t.3", b"s.", b"s.x", b"s.-1", b"s.99999999999", b"s.3.4", "s.²".encode()])
def test_last_event_ids(bad: bytes) -> None:
    assert on_disconnect.event_number("s", b"s.12") == 12
    with pytest.raises(GatewayError, match=r"event"):
        on_disconnect.event_number("s", bad)
