"""A client that leaves stops its upstream at once, whatever the call was waiting for (FAULTS 31, 32, 33).

The instant of the upstream's end is taken at the upstream.  Each case is done several times and the median judged: a
machine that was busy elsewhere for a moment does not make the gateway slow.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from headgate.model import Closed, ConnectionLimits, Limits, Opened
from headgate.testing import Provider, Script
from tests.dataplane import DataPlane, upstream
from tests.serving.calls import (
    STREAM_HEAD,
    at_once,
    chunk_event,
    chunked,
    closed_by_id,
    opened,
    request,
    scripted_in_thread,
)
from tests.serving.tls import ca_file, tls_provider
from tests.waiting import wait_until, wait_until_steady

TIMES = 5


def median_delay(plane: DataPlane, provider: Provider, data: bytes, reach: Callable[[object], None], how: str) -> float:
    """The median of the delays from leaving to the provider's noticing."""
    delays = []
    for _ in range(TIMES):
        before = len(provider.requests)
        with opened(plane, data) as stream:
            wait_until(lambda before=before: len(provider.requests) > before)
            reach(stream)
            left = stream.leave(how)
        seen = provider.requests[-1]
        wait_until(lambda seen=seen: seen.how)
        assert seen.how == "client_closed" and seen.ended_at is not None
        delays.append(seen.ended_at - left)
    return statistics.median(delays)


PHASES: dict[str, tuple[str, bool, Callable[[object], None]]] = {
    "waiting for headers": ("up/fault/accept-silence", True, lambda stream: None),
    "waiting for the first token": ("up/fault/late-first-token", True, lambda stream: time.sleep(0.02)),
    "streaming": ("up/lorem?rate=100&ttft=0&tokens=5000", True, lambda stream: stream.head().until(b"dolor")),  # type: ignore[attr-defined]
    "in a silence": ("up/fault/stall?after=3", True, lambda stream: stream.head().until(b"dolor")),  # type: ignore[attr-defined]
    "waiting for a whole answer": ("up/lorem?rate=1&ttft=9&tokens=5", False, lambda stream: time.sleep(0.02)),
    "with half of a whole answer there": ("up/fault/slow-body?for=20", False, lambda stream: time.sleep(0.05)),
}


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("phase", PHASES)
def test_the_upstream_is_closed_at_once(gate: DataPlane, provider: Provider, phase: str, how: str) -> None:
    model, streamed, reach = PHASES[phase]
    before = len([r for r in gate.records() if isinstance(r, Closed)])
    assert median_delay(gate, provider, request(model, stream=streamed), reach, how) < at_once(gate)
    records = gate.wait_for(Closed, before + TIMES)[before:]
    assert [(r.outcome, r.status, r.basis) for r in records] == [("cancelled", 499, "estimated")] * TIMES  # type: ignore[union-attr]


def test_what_was_streamed_until_then_is_in_the_receipt(gate: DataPlane) -> None:
    with opened(gate, request("up/lorem?rate=200&ttft=0&tokens=5000")) as stream:
        stream.head()
        while stream.buffer.count(b"data: ") < 40:
            stream._more()
        stream.leave()
    record = closed_by_id(gate, stream.headers["x-headgate-stream-id"])
    assert (record.outcome, record.basis, record.provider) == ("cancelled", "estimated", "up")
    assert record.prompt_tokens > 0 and 38 <= record.completion_tokens < 400 and record.bytes_out > 1000
    assert [(a.status, a.code) for a in record.attempts] == [(0, "")] or record.attempts[0].provider == "up"


def test_while_waiting_for_a_connection(provider: Provider, tmp_path: Path) -> None:
    """The waiting call leaves: nobody is asked on its behalf, and the one before it goes on."""
    row = upstream(provider.url, pool=ConnectionLimits(max_connections=1, wait_s=20))
    with DataPlane(tmp_path / "s", row) as plane:
        before = len(provider.requests)
        with opened(plane, request("up/lorem?rate=50&ttft=0&tokens=5000")) as running:
            running.head().until(b"Lorem")
            for how in ("fin", "rst"):
                with opened(plane, request("up/echo")) as waiting:
                    wait_until(lambda: len([r for r in plane.records() if isinstance(r, Opened)]) > 1)
                    time.sleep(0.05)
                    waiting.leave(how)
            records = plane.wait_for(Closed, 2)
            assert [r.outcome for r in records] == ["cancelled"] * 2  # type: ignore[union-attr]
            running.until(b"incididunt")
            running.leave()
        plane.wait_for(Closed, 3)
        with opened(plane, request("up/echo")) as next_one:
            next_one.rest().check_stream("say something please")
        assert len(provider.requests) - before == 2, "an attempt was started for a client that had left"


def test_while_connecting(tmp_path: Path) -> None:
    """A TLS handshake that the other side never answers: the call ends at once, not when the connection fails."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        row = upstream(f"https://127.0.0.1:{deaf.getsockname()[1]}/v1")
        with DataPlane(tmp_path / "s", row) as plane:
            for how in ("fin", "rst"):
                with opened(plane, request("up/m")) as stream:
                    time.sleep(0.1)
                    stream.leave(how)
                wait_until(lambda how=how: len(plane.wait_for(Closed, 1)) >= (1 if how == "fin" else 2))
            assert [r.outcome for r in plane.wait_for(Closed, 2)] == ["cancelled"] * 2  # type: ignore[union-attr]


def test_a_client_that_did_not_read_and_then_leaves(gate: DataPlane, provider: Provider) -> None:
    """Its stream is paused on both sides; its RST and its FIN are seen all the same."""

    def reach(stream: object) -> None:
        seen = provider.requests[-1]
        wait_until_steady(lambda: seen.tokens, 0.15)

    for how in ("fin", "rst"):
        data = request("up/lorem?rate=0&ttft=0&tokens=100000")
        assert median_delay(gate, provider, data, reach, how) < at_once(gate)


def test_the_bytes_seen_by_a_scripted_upstream(tmp_path: Path) -> None:
    """As above with exact bytes: after the head, after an event, after half an event, between chunk and CRLF."""
    event = chunk_event({"content": "hi"})
    beginnings = [
        STREAM_HEAD,
        STREAM_HEAD + chunked(event),
        STREAM_HEAD + chunked(event) + chunked(event[:20]),
        STREAM_HEAD + chunked(event) + chunked(event)[:-1],
    ]
    scripts: list[Script] = [[("expect_request",), ("send", b), ("expect_close",)] for b in beginnings]
    with scripted_in_thread(*scripts) as up, DataPlane(tmp_path / "s", upstream(up.url)) as plane:
        delays = []
        for number in range(len(scripts)):
            with opened(plane, request("up/m")) as stream:
                wait_until(lambda number=number: len(up.requests) > number)
                time.sleep(0.05)
                left = stream.leave()
            wait_until(lambda number=number: len(up.closed_at) > number)
            delays.append(up.closed_at[-1] - left)
        assert statistics.median(delays) < at_once(plane) and up.failures == []
        assert len(up.received) == len(scripts), "a connection with half an answer on it must not be used again"


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[Provider, str]]:
    """The provider under TLS, and the CA file that vouches for it."""
    authority = trustme.CA()
    with tls_provider(authority, "127.0.0.1") as provider:
        yield provider, ca_file(authority, tmp_path)


def test_under_tls_too(secured: tuple[Provider, str], tmp_path: Path) -> None:
    """close() would wait for the peer's goodbye; the provider must see the end at once."""
    provider, trusted = secured
    with DataPlane(tmp_path / "s", upstream(provider.url, ca_file=trusted)) as plane:
        for phase in ("streaming", "waiting for headers", "waiting for a whole answer"):
            model, streamed, reach = PHASES[phase]
            for how in ("fin", "rst"):
                delay = median_delay(plane, provider, request(model, stream=streamed), reach, how)
                assert delay < at_once(plane), phase


def test_a_paused_tls_stream_is_left_at_once(secured: tuple[Provider, str], tmp_path: Path) -> None:
    provider, trusted = secured

    def reach(stream: object) -> None:
        seen = provider.requests[-1]
        level = wait_until_steady(lambda: seen.tokens, 0.15)
        assert level < 90_000, "a client that reads nothing has not stopped its TLS upstream"

    with DataPlane(tmp_path / "s", upstream(provider.url, ca_file=trusted), limits=Limits()) as plane:
        data = request("up/lorem?rate=0&ttft=0&tokens=100000")
        assert median_delay(plane, provider, data, reach, "rst") < at_once(plane)
