"""The gateway ends what still runs, because its time to drain is over or somebody is impatient: each client is told
why, each receipt is closed with what was used, and only then are connections cut.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.model import Closed, Limits, Opened
from headgate.testing import Provider
from tests.dataplane import DataPlane, upstream
from tests.serving.calls import Answer, Stream, opened, request
from tests.serving.resuming import AUTH, alias, get_bytes, numbered, plane, read_events
from tests.waiting import wait_until

LONG = "up/lorem?rate=40&ttft=0&tokens=5000"
FLOOD = "up/lorem?rate=0&ttft=0&tokens=60000"
SILENT = "up/fault/accept-silence"
WAYS = ["its time is over", "a second signal"]
LIMITED = dict(zip(WAYS, ("429-once", "retry-after-date"), strict=True))  # each is met once


@contextlib.contextmanager
def gateway(folder: Path, provider: Provider, way: str) -> Iterator[DataPlane]:
    limits = Limits(drain=0.4 if way == WAYS[0] else 300.0, replay_per_stream=16 << 20)
    with plane(folder / "s", upstream(provider.url), alias("slow", LONG), limits=limits) as gate:
        yield gate


def end(gate: DataPlane, way: str) -> None:
    """Lets ``gate`` end, long before a drain of five minutes would."""
    gate.process.send_signal(signal.SIGTERM)
    if way == WAYS[1]:
        time.sleep(0.2)
        assert gate.process.poll() is None
        gate.process.send_signal(signal.SIGTERM)


def receipts(gate: DataPlane) -> dict[str, Closed]:
    """By the client's own ids; checks that every call that was opened is closed, once."""
    found = gate.records()
    opens = {record.id: record.label for record in found if isinstance(record, Opened)}
    closes = [record for record in found if isinstance(record, Closed)]
    assert sorted(opens) == sorted(record.id for record in closes)
    return {opens[record.id]: record for record in closes}


def refused(answer: Answer, label: str) -> None:
    assert (answer.status, answer.error["code"]) == (503, "draining")
    assert answer.headers["retry-after"] == "1" and answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"] == label


@pytest.mark.parametrize("way", WAYS)
def test_every_client_is_told_and_every_receipt_closed(provider: Provider, tmp_path: Path, way: str) -> None:
    streams: dict[str, Stream] = {}
    keep = {"resumable_s": 60}
    before = len(provider.requests)
    with gateway(tmp_path, provider, way) as gate, contextlib.ExitStack() as stack:

        def call(label: str, model: str, *fields: str, **more: object) -> None:
            data = request(model, f"X-Request-Id: {label}", *fields, **more)  # type: ignore[arg-type]
            streams[label] = stack.enter_context(opened(gate, data))

        call("plain", LONG)
        call("alias", "slow", headgate={})  # which would go on with a broken stream
        call("kept", LONG, headgate=keep)
        call("drained", LONG, headgate={"on_disconnect": "drain"})
        call("left", LONG, headgate=keep)
        call("whole", LONG, stream=False)
        call("keyed", LONG, "Idempotency-Key: a", stream=False)
        wait_until(lambda: len(provider.requests) == before + 7)
        call("repeat", LONG, "Idempotency-Key: a", stream=False)
        call("silent", SILENT)
        call("silent-keyed", SILENT, "Idempotency-Key: b")
        call("silent-kept", SILENT, headgate=keep)
        call("pausing", f"up/fault/{LIMITED[way]}?retry_after=3", headgate={})
        for label in ("plain", "alias", "kept", "drained", "left"):
            streams[label].until(b"dolor")
        streams["left"].leave()
        wait_until(lambda: len(provider.requests) == before + 11)
        time.sleep(0.1)
        end(gate, way)
        answers = {label: stream.rest() for label, stream in streams.items() if label != "left"}
        assert gate.process.wait(60) == 0
        closed = receipts(gate)
    for label in ("plain", "alias", "drained"):
        answers[label].check_truncated("draining")
    kept = numbered(answers["kept"].raw)
    assert answers["kept"].ended and b'"code":"draining"' in kept[-1][1]
    for label in ("plain", "alias", "kept", "drained"):
        record = closed[label]
        assert (record.outcome, record.status, record.code) == ("truncated", 200, "draining"), label
        assert record.completion_tokens >= 3 and 0 < record.bytes_out < len(answers[label].raw), label
        assert [attempt.code for attempt in record.attempts] == ["draining"]
    record = closed["left"]
    assert (record.outcome, record.code) == ("cancelled", "client_closed_request") and record.completion_tokens >= 3
    for label in ("whole", "keyed", "silent", "silent-keyed", "silent-kept", "pausing"):
        refused(answers[label], label)
        assert (closed[label].outcome, closed[label].status, closed[label].code) == ("failed", 503, "draining"), label
    refused(answers["repeat"], "keyed")
    assert answers["repeat"].headers["x-headgate-idempotent-replay"] == "true" and "repeat" not in closed
    wait_until(lambda: all(seen.how for seen in list(provider.requests)[before:]))


@contextlib.contextmanager
def reading_slowly(gate: DataPlane, data: bytes) -> Iterator[Stream]:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(30)
        sock.connect(("127.0.0.1", gate.port))
        sock.sendall(data)
        yield Stream(sock)


@pytest.mark.parametrize("way", WAYS)
def test_whoever_does_not_read_is_not_waited_for(provider: Provider, tmp_path: Path, way: str) -> None:
    """Of a call, and of a kept stream that has ended: a second for what was said last, then the connection is cut."""
    with gateway(tmp_path, provider, way) as gate, contextlib.ExitStack() as stack:
        whole = stack.enter_context(opened(gate, request(FLOOD, headgate={"resumable_s": 60}), timeout=30))
        whole.rest()
        path = f"/v1/streams/{whole.headers['x-headgate-stream-id']}"
        for data in (request(FLOOD, "X-Request-Id: stuck"), get_bytes(path, AUTH)):
            stack.enter_context(reading_slowly(gate, data)).head()
        time.sleep(0.3)
        end(gate, way)
        assert gate.process.wait(60) == 0
        record = receipts(gate)["stuck"]
    assert (record.outcome, record.code) == ("truncated", "draining") and record.completion_tokens > 100


def test_a_reader_that_lags_is_told_where_it_is(provider: Provider, tmp_path: Path) -> None:
    with gateway(tmp_path, provider, WAYS[1]) as gate, contextlib.ExitStack() as stack:
        first = stack.enter_context(opened(gate, request(FLOOD, headgate={"resumable_s": 60}), timeout=30))
        whole = numbered(first.rest().raw)
        path = f"/v1/streams/{first.headers['x-headgate-stream-id']}"
        lagging = stack.enter_context(reading_slowly(gate, get_bytes(path, AUTH))).head()
        time.sleep(0.3)
        end(gate, WAYS[1])
        answer = lagging.rest()  # as fast as it can: it may be at the end within the second that is left
        assert gate.process.wait(60) == 0
    events, _, last = answer.raw[:-2].rpartition(b"\n\n")
    assert answer.ended and b'"code":"draining"' in last
    found = numbered(events + b"\n\n")
    assert 1 < len(found) < len(whole) and found == whole[: len(found)]


def test_what_ends_in_time_is_not_cut(provider: Provider, tmp_path: Path) -> None:
    with gateway(tmp_path, provider, WAYS[1]) as gate:
        with opened(gate, request("up/lorem?rate=40&ttft=0&tokens=30", "X-Request-Id: fine")) as stream:
            read_events(stream, 3)
            gate.process.send_signal(signal.SIGTERM)
            assert stream.rest().events[-1] == "[DONE]"
        assert gate.process.wait(60) == 0
        assert receipts(gate)["fine"].outcome == "delivered"
