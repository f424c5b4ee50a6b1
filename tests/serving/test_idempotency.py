"""An Idempotency-Key: however often the same call is sent, it is made once, and every sender reads its answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.model import Closed, Limits, Opened
from headgate.testing import Provider
from tests.dataplane import DataPlane, post, upstream
from tests.serving.calls import PATH, Answer, ask, body, closed_by_id, opened, request
from tests.serving.resuming import AUTH, OTHER, get, numbered, plane, read_events
from tests.waiting import wait_until

SHORT = "up/lorem?rate=400&ttft=0&tokens=24"
SLOW = "up/lorem?rate=60&ttft=0&tokens=40"


@pytest.fixture(scope="module")
def gate(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    with plane(tmp_path_factory.mktemp("idempotency") / "s", upstream(provider.url)) as running:
        yield running
        assert running.process.poll() is None, "the data process ended during the tests"


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    return f"Idempotency-Key: {request.node.name}"


def counts(gate: DataPlane, provider: Provider) -> tuple[int, int]:
    """Calls admitted, upstream requests made."""
    admitted = [record for record in gate.records() if isinstance(record, Opened) and record.provider]
    return len(admitted), len(provider.requests)


@pytest.mark.parametrize("stream", [True, False])
def test_a_repeat_reads_the_stored_answer(gate: DataPlane, provider: Provider, key: str, stream: bool) -> None:
    before = counts(gate, provider)
    first = ask(gate, SHORT, key, stream=stream)
    repeats = [ask(gate, SHORT, key, stream=stream) for _ in range(3)]
    assert counts(gate, provider) == (before[0] + 1, before[1] + 1)
    assert first.status == 200 and "x-headgate-idempotent-replay" not in first.headers
    for repeat in repeats:
        assert (repeat.status, repeat.raw, repeat.ended) == (200, first.raw, True)
        assert repeat.headers["x-headgate-idempotent-replay"] == "true"
        assert repeat.headers["x-request-id"] == first.headers["x-request-id"]
    assert closed_by_id(gate, first.headers["x-request-id"]).outcome == "delivered"


@pytest.mark.parametrize("stream", [True, False])
def test_a_repeat_attaches_to_the_running_call(gate: DataPlane, provider: Provider, key: str, stream: bool) -> None:
    before = counts(gate, provider)
    data = request(SLOW, key, stream=stream)
    with opened(gate, data) as first:
        wait_until(lambda: len(provider.requests) > before[1])
        if stream:
            read_events(first, 5)
        with opened(gate, data) as second, opened(gate, data) as third:
            third.leave("rst")
            answers = [first.rest(), second.rest()]
    assert answers[0].raw == answers[1].raw and all(answer.ended for answer in answers)
    assert counts(gate, provider) == (before[0] + 1, before[1] + 1)
    assert answers[1].headers["x-headgate-idempotent-replay"] == "true"


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_lost_its_connection_sends_it_again(
    gate: DataPlane, provider: Provider, key: str, stream: bool, how: str
) -> None:
    """Before there was anything to read, too: it knows its key, if not the stream's id."""
    model = "up/lorem?rate=100&ttft=0.3&tokens=20"
    expected = ask(gate, model, stream=stream)
    before = counts(gate, provider)
    with opened(gate, request(model, key, stream=stream)) as first:
        wait_until(lambda: len(provider.requests) > before[1])
        first.leave(how)
    time.sleep(0.1)
    again = ask(gate, model, key, stream=stream)
    assert counts(gate, provider) == (before[0] + 1, before[1] + 1)
    if stream:
        assert len(numbered(again.raw)) == len(expected.events)
    else:
        assert again.json["choices"] == expected.json["choices"]
    assert closed_by_id(gate, again.headers["x-request-id"]).outcome == "delivered"


def test_at_every_event_the_same_post_goes_on_from_the_start(gate: DataPlane, key: str) -> None:
    whole = ask(gate, "up/lorem?rate=400&ttft=0&tokens=8")
    for at in range(len(whole.events)):
        data = request("up/lorem?rate=400&ttft=0&tokens=8", f"{key}-{at}")
        with opened(gate, data) as first:
            have = read_events(first, at)
            first.leave("rst")
        with opened(gate, data) as second:
            again = second.rest()
        assert again.raw.startswith(have) and len(numbered(again.raw)) == len(whole.events)


@pytest.mark.parametrize("stream", [True, False])
def test_fifty_at_once_are_one_call(gate: DataPlane, provider: Provider, key: str, stream: bool) -> None:
    before = counts(gate, provider)
    found: list[Answer] = []

    def one() -> None:
        found.append(ask(gate, "up/lorem?rate=100&ttft=0.5&tokens=10", key, stream=stream))

    threads = [threading.Thread(target=one) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [answer.status for answer in found] == [200] * 50 and len({answer.raw for answer in found}) == 1
    assert counts(gate, provider) == (before[0] + 1, before[1] + 1)


def test_another_body_is_a_conflict(gate: DataPlane, provider: Provider, key: str) -> None:
    first = ask(gate, SHORT, key, stream=False)
    before = counts(gate, provider)
    for other in (
        request(SHORT, key, stream=False, temperature=0),
        request(SHORT, key, stream=True),
        post(PATH + "?include_route_trace=true", body(SHORT, stream=False), key),
    ):
        with opened(gate, other) as stream:
            answer = stream.rest()
        assert (answer.status, answer.error["code"], answer.error["type"]) == (
            409, "idempotency_mismatch", "conflict_error",
        )  # fmt: skip
        assert answer.error["param"] == "Idempotency-Key"
    assert counts(gate, provider)[1] == before[1]
    assert ask(gate, SHORT, key, stream=False).raw == first.raw


def test_a_key_belongs_to_its_token(gate: DataPlane, key: str) -> None:
    mine = ask(gate, SHORT, key, stream=False)
    theirs = ask(gate, SHORT, key, stream=False, token=OTHER)
    assert "x-headgate-idempotent-replay" not in theirs.headers and theirs.json["id"] != mine.json["id"]
    assert ask(gate, "up/echo", key, stream=False, token=OTHER).status == 409


@pytest.mark.parametrize(
    "fault", ["up/fault/500", "up/fault/429", "up/fault/hollow", "up/fault/cut-mid-stream?after=3", "nowhere/model"]
)
def test_what_failed_is_not_stored(gate: DataPlane, provider: Provider, key: str, fault: str) -> None:
    first = ask(gate, fault, key)
    before = len(provider.requests)
    second = ask(gate, fault, key)
    assert "x-headgate-idempotent-replay" not in second.headers
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(provider.requests) > before or fault == "nowhere/model"
    assert ask(gate, SHORT, key, stream=False).status == 200  # the key is free


def test_a_stopped_call_frees_its_key(gate: DataPlane, key: str) -> None:
    with opened(gate, request(SLOW, key)) as stream:
        stream.head()
        get(gate, stream.headers["x-headgate-stream-url"], method="DELETE")
        assert b"stream_stopped" in stream.rest().raw
    again = ask(gate, SLOW, key)
    assert "x-headgate-idempotent-replay" not in again.headers and again.raw.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("value", ["", "x" * 256, "caf\xe9"])
def test_keys_have_a_form(gate: DataPlane, provider: Provider, value: str) -> None:
    data = post(PATH, body(SHORT)).replace(
        b"\r\n\r\n", b"\r\nIdempotency-Key: " + value.encode("latin-1") + b"\r\n\r\n", 1
    )
    before = len(provider.requests)
    with opened(gate, data) as stream:
        answer = stream.rest()
    assert (answer.status, answer.error["param"]) == (400, "Idempotency-Key")
    assert len(provider.requests) == before
    assert ask(gate, "up/echo", "Idempotency-Key: " + "k" * 255, stream=False).status == 200


def test_white_space_around_a_key_is_not_of_the_key(gate: DataPlane, key: str) -> None:
    """RFC 9110 §5.5."""
    first = ask(gate, SHORT, key, stream=False)
    assert ask(gate, SHORT, f"{key} \t", stream=False).raw == first.raw


def test_the_stored_answer_has_its_time(provider: Provider, tmp_path: Path) -> None:
    limits = Limits(idempotency_ttl=0.5, replay_ttl=0.1)
    with plane(tmp_path / "s", upstream(provider.url), limits=limits) as gate:
        for stream in (True, False):
            key = f"Idempotency-Key: {stream}"
            first = ask(gate, SHORT, key, stream=stream)
            time.sleep(0.25)
            assert ask(gate, SHORT, key, stream=stream).raw == first.raw
            wait_until(lambda: "x-headgate-idempotent-replay" not in ask(gate, SHORT, key, stream=stream).headers)  # noqa: B023


def test_what_has_no_room_is_not_stored(provider: Provider, tmp_path: Path) -> None:
    with plane(tmp_path / "s", upstream(provider.url), limits=Limits(replay_max=5000)) as gate:
        answers = [ask(gate, "up/lorem?tokens=900&rate=0&ttft=0", "Idempotency-Key: a", stream=False) for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 200]
        assert answers[0].json["id"] != answers[1].json["id"]


def test_a_stream_longer_than_its_ring_is_said_to_be_gone(provider: Provider, tmp_path: Path) -> None:
    with plane(tmp_path / "s", upstream(provider.url), limits=Limits(replay_per_stream=1500)) as gate:
        ask(gate, SHORT, "Idempotency-Key: a")
        answer = ask(gate, SHORT, "Idempotency-Key: a")
        assert (answer.status, answer.error["code"]) == (410, "stream_expired")
        outcomes = [record.outcome for record in gate.records() if isinstance(record, Closed)]
        assert outcomes == ["delivered", "refused"]


def test_a_stored_answer_is_no_stream(gate: DataPlane, key: str) -> None:
    answer = ask(gate, SHORT, key, stream=False)
    assert get(gate, f"/v1/streams/{answer.json['id']}", AUTH).status == 404
