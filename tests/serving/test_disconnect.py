"""What becomes of a call when its client leaves: cancel, drain, detach.  (``cancel``, the default: test_cancel.)"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import pytest

from headgate.model import Closed
from headgate.testing import Provider
from tests.dataplane import DataPlane, upstream
from tests.serving.calls import Stream, at_once, closed_by_id, opened, request
from tests.serving.resuming import AUTH, alias, get, numbered, plane, read_events
from tests.waiting import wait_until, wait_until_steady

MODEL = "up/lorem?rate=200&ttft=0&tokens=60"
ENDLESS = "up/lorem?rate=200&ttft=0&tokens=5000"


@pytest.fixture(scope="module")
def gate(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    aliases = (
        alias("drain", MODEL, on_disconnect="drain"),
        alias("drain/short", ENDLESS, on_disconnect="drain", drain_s=0.4),
        alias("drain/few", ENDLESS, on_disconnect="drain", drain_tokens=40),
        alias("detach", MODEL, on_disconnect="detach"),
        alias("detach/brief", ENDLESS, on_disconnect="detach", resumable_s=0.3),
    )
    with plane(tmp_path_factory.mktemp("disconnect") / "s", upstream(provider.url), *aliases) as running:
        yield running
        assert running.process.poll() is None, "the data process ended during the tests"


def leave_after(gate: DataPlane, data: bytes, events: int, how: str) -> tuple[Stream, float]:
    with opened(gate, data) as stream:
        read_events(stream, events)
        return stream, stream.leave(how)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_drain_reads_to_the_end_and_bills_what_the_provider_says(gate: DataPlane, provider: Provider, how: str) -> None:
    stream, _ = leave_after(gate, request("drain"), 0, how)
    seen = provider.requests[-1]
    record = closed_by_id(gate, stream.headers["x-headgate-stream-id"])
    assert (record.outcome, record.status, record.code) == ("cancelled", 499, "client_closed_request")
    assert (record.basis, record.completion_tokens) == ("provider", 60)
    assert record.bytes_out < 60 * 200  # what was drained was not sent
    wait_until(lambda: seen.how)
    assert seen.how != "client_closed"
    assert b"id: " not in stream.buffer and "x-headgate-stream-url" not in stream.headers


def test_drain_of_a_whole_answer(gate: DataPlane, provider: Provider) -> None:
    before, closed = len(provider.requests), len([r for r in gate.records() if isinstance(r, Closed)])
    with opened(gate, request("drain", stream=False)) as stream:
        wait_until(lambda: len(provider.requests) > before)
        stream.leave()
    record = gate.wait_for(Closed, closed + 1)[-1]
    assert isinstance(record, Closed)
    assert (record.outcome, record.status, record.basis, record.completion_tokens) == ("cancelled", 499, "provider", 60)


def test_drain_has_a_bound_in_time(gate: DataPlane, provider: Provider) -> None:
    stream, left = leave_after(gate, request("drain/short"), 3, "fin")
    seen = provider.requests[-1]
    wait_until(lambda: seen.how)
    assert seen.how == "client_closed" and seen.ended_at is not None and seen.ended_at - left >= 0.3
    assert closed_by_id(gate, stream.headers["x-headgate-stream-id"]).outcome == "cancelled"


def test_drain_has_a_bound_in_tokens(gate: DataPlane, provider: Provider) -> None:
    stream, _ = leave_after(gate, request("drain/few"), 3, "rst")
    seen = provider.requests[-1]
    wait_until(lambda: seen.how)
    record = closed_by_id(gate, stream.headers["x-headgate-stream-id"])
    assert seen.how == "client_closed" and record.outcome == "cancelled"
    assert 40 <= record.completion_tokens < 40 + 150


def test_departed_slow_client_releases_the_drain(gate: DataPlane, provider: Provider) -> None:
    data = request("up/lorem?rate=0&ttft=0&tokens=60000", headgate={"on_disconnect": "drain"})
    with opened(gate, data) as stream:
        stream.head()
        seen = provider.requests[-1]
        level = wait_until_steady(lambda: seen.tokens)  # the upstream is held
        assert level < 60000
        stream.leave("rst")
    # Its tokens' bound (8,192) ends it, or its end.
    assert closed_by_id(gate, stream.headers["x-headgate-stream-id"], 20).outcome == "cancelled"
    assert seen.tokens > level


def test_detach_keeps_it_for_whoever_comes_back(gate: DataPlane) -> None:
    stream, _ = leave_after(gate, request("detach"), 3, "rst")
    ident = stream.headers["x-headgate-stream-id"]
    assert closed_by_id(gate, ident).outcome == "delivered"  # whole, and kept for its client
    assert len(numbered(get(gate, f"/v1/streams/{ident}", AUTH).raw)) == 63


def test_detach_ends_with_its_grace(gate: DataPlane, provider: Provider) -> None:
    """The upstream is closed when the grace ends, not before; the clock that it goes by ticks every 50 ms."""
    late = []
    for how in ("fin", "rst", "fin", "rst", "fin"):
        _, left = leave_after(gate, request("detach/brief"), 3, how)
        seen = provider.requests[-1]
        wait_until(lambda seen=seen: seen.how)
        assert seen.ended_at is not None
        late.append(seen.ended_at - left - 0.3)
    assert statistics.median(late) > -0.06, late


def test_the_request_has_the_last_word(gate: DataPlane, provider: Provider) -> None:
    for name, said in (
        ("drain", {"on_disconnect": "cancel"}),
        ("detach", {"on_disconnect": "cancel"}),
        ("detach", {"resumable_s": 0}),
        ("detach/brief", {"on_disconnect": "cancel"}),
    ):
        stream, left = leave_after(gate, request(name, headgate=said), 3, "fin")
        seen = provider.requests[-1]
        wait_until(lambda seen=seen: seen.how)
        assert seen.how == "client_closed" and seen.ended_at is not None, (name, said)
        assert seen.ended_at - left < 5 * at_once(gate), (name, said)
        assert b"id: " not in stream.buffer
