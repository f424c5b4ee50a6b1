"""A stream whose connection and whose provider both break: the client reads one stream on, numbers and text whole."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.continuation.broken_streams import asked, engine_process, pair, rows
from tests.continuation.broken_streams import plane as engines
from tests.dataplane import DataPlane, post
from tests.serving.calls import closed_by_id, opened
from tests.serving.resuming import AUTH, EventSource, get, numbered, read_events

TOKENS = 30
KINDS = ("trailing", "none")  # prefilled; made afresh and spliced


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    made = rows(KINDS)
    with engine_process() as url:
        pairs = [pair(url, kind, made[kind], made[kind], resumable_s=20.0) for kind in KINDS]
        with engines(
            tmp_path_factory.mktemp("both"), [one for both, _ in pairs for one in both], [name for _, name in pairs]
        ) as running:
            yield running
            assert running.process.poll() is None, "the data process ended during the tests"


def request(kind: str, **engine: object) -> bytes:
    body = asked(f"cut/{kind}", {"seed": 5, "tokens": TOKENS, "pace": 4, **engine})
    return post("/v1/chat/completions", json.dumps(body).encode())


def text(messages: list[str]) -> str:
    assert messages[-1] == "[DONE]" and messages.count("[DONE]") == 1
    chunks = [json.loads(message) for message in messages[:-1]]
    assert len({chunk["id"] for chunk in chunks}) == 1
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def whole(gate: DataPlane, kind: str) -> str:
    with opened(gate, request(kind)) as stream:
        return text([payload.decode() for _, payload in numbered(stream.rest().raw)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [1, 2, 9, 17, TOKENS])
def test_both_break_at_once(gate: DataPlane, kind: str, at: int) -> None:
    """Its client leaves around the event behind which its provider dies, and comes back every three events."""
    for leaves in (max(0, at - 1), at, at + 1, at + 2):
        with opened(gate, request(kind, kill=[at, 3])) as stream:
            have = [payload.decode() for _, payload in numbered(read_events(stream, leaves))]
            stream.leave("rst")
        source = EventSource(gate, stream.headers["x-headgate-stream-url"])
        source.last_event_id = f"{stream.headers['x-headgate-stream-id']}.{leaves}" if leaves else ""
        while source.state == "connecting":
            missing = json.dumps(source.messages[-1:]) != '["[DONE]"]'
            source.connect(1 if missing else None)
        assert text(have + source.messages) == whole(gate, kind)
        ident = stream.headers["x-headgate-stream-id"]
        everything = numbered(get(gate, f"/v1/streams/{ident}", AUTH).raw)  # one row of numbers, no gap, no repetition
        assert [payload.decode() for _, payload in everything] == have + source.messages
        assert closed_by_id(gate, ident).outcome == "delivered"


@pytest.mark.parametrize("kind", KINDS)
def test_delete_while_it_is_being_continued(gate: DataPlane, kind: str) -> None:
    """Before the second attempt, in it, behind it: the call ends, and once."""
    for pause in (0.0, 0.01, 0.05, 0.1, 0.2):
        with opened(gate, request(kind, kill=[4, 2, 2], how="stall" if pause == 0.2 else "close")) as stream:
            read_events(stream, 4)
            path = f"/v1/streams/{stream.headers['x-headgate-stream-id']}"
            time.sleep(pause)
            status = get(gate, path, AUTH, method="DELETE").json["status"]
            rest = stream.rest()
        record = closed_by_id(gate, stream.headers["x-headgate-stream-id"])
        assert rest.ended
        if status == "stopped":
            assert b"stream_stopped" in rest.raw and b"[DONE]" not in rest.raw and record.outcome == "cancelled"
