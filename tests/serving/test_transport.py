"""Connections to the upstream: pooled, capped, stale, old; and every framing of an answer, sound or not."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from headgate.model import Closed, ConnectionLimits
from headgate.testing import Provider, Script
from headgate.testing.provider import lorem
from tests.dataplane import DataPlane, upstream
from tests.serving.calls import (
    STREAM_HEAD,
    Answer,
    ask,
    chunk_event,
    chunked,
    document,
    opened,
    request,
    scripted_in_thread,
    transcript,
    whole_json,
    whole_stream,
)
from tests.waiting import wait_until

OK_JSON = whole_json(document())
ASKED = ("expect_request",)


def through(
    tmp_path: Path, *scripts: Script, calls: int = 1, stream: bool = False, pause: float = 0.05
) -> list[Answer]:
    with scripted_in_thread(*scripts) as up, DataPlane(tmp_path / "s", upstream(up.url)) as plane:
        answers = []
        for _ in range(calls):
            answers.append(ask(plane, "up/m", stream=stream))
            time.sleep(pause)
        assert up.failures == []
        return answers


def test_no_header_is_sent_twice(tmp_path: Path) -> None:
    """The operator's value wins over the client's; the transport's own fields are neither's."""
    with scripted_in_thread([ASKED, ("send", OK_JSON)]) as up:
        headers = {"Content-Type": "text/plain", "accept": "x/y", "User-Agent": "mine", "X-Team": "a"}
        row = replace(upstream(up.url), headers=headers, forward_headers=("content-type", "x-team", "x-trace"))
        with DataPlane(tmp_path / "s", row) as plane:
            ask(plane, "up/m", "x-team: b", "x-trace: c", stream=False)
        head = bytes(up.received[0]).partition(b"\r\n\r\n")[0].decode()
    lines = [line.partition(": ") for line in head.split("\r\n")[1:]]
    sent = {name.lower(): value for name, _, value in lines}
    assert len(sent) == len(lines), head
    assert sent["content-type"] == sent["accept"] == "application/json"
    assert (sent["user-agent"], sent["x-team"], sent["x-trace"]) == ("mine", "a", "c")


# ------------------------------------------------------------------------------- pooled connections


@pytest.mark.parametrize("stream", [True, False])
def test_one_connection_serves_call_after_call(provider: Provider, tmp_path: Path, stream: bool) -> None:
    with DataPlane(tmp_path / "s", upstream(provider.url)) as plane:
        before = len(provider.requests)
        for _ in range(10):
            assert ask(plane, "up/lorem?rate=0&ttft=0&tokens=3", stream=stream).status == 200
        assert len({seen.connection for seen in list(provider.requests)[before:]}) == 1


def test_the_end_of_a_chunked_body_may_come_a_little_later(tmp_path: Path) -> None:
    """[DONE] ends the call; the last chunk comes in a packet of its own, and the connection is used again."""
    one = [ASKED, ("send", STREAM_HEAD + chunked(transcript("a"))), ("wait", 0.4), ("send", b"0\r\n\r\n")]
    script: Script = [*one, *one]  # type: ignore[list-item]
    with scripted_in_thread(script) as up, DataPlane(tmp_path / "s", upstream(up.url)) as plane:
        for _ in range(2):
            begun = time.monotonic()
            ask(plane, "up/m").check_stream("a")
            assert time.monotonic() - begun < 0.4, "the client waited for the framing"
            time.sleep(0.5)
        assert len(up.received) == 1


def test_body_that_outlasts_done_closes_the_connection(tmp_path: Path) -> None:
    first: Script = [ASKED, ("send", STREAM_HEAD + chunked(transcript("a"))), ("expect_close",)]
    second: Script = [ASKED, ("send", whole_stream(transcript("b"))), ("expect_close",)]
    with scripted_in_thread(first, second) as up, DataPlane(tmp_path / "s", upstream(up.url)) as plane:
        ask(plane, "up/m").check_stream("a")
        ended = time.monotonic()
        ask(plane, "up/m").check_stream("b")
        wait_until(lambda: up.closed_at)
        assert up.closed_at[0] - ended > 0.8


def test_a_stale_connection_is_replaced_without_a_word(tmp_path: Path) -> None:
    """The upstream closes just as the second request arrives: it is asked once more, on a new connection."""
    for how in ("close", "reset"):
        stale: Script = [ASKED, ("send", OK_JSON), ASKED, (how,)]  # type: ignore[list-item]
        fine: Script = [ASKED, ("send", OK_JSON), ("expect_close",)]
        with scripted_in_thread(stale, fine) as up, DataPlane(tmp_path / how, upstream(up.url)) as plane:
            assert [ask(plane, "up/m", stream=False).status for _ in range(2)] == [200, 200]
            assert len(up.requests) == 3 and len(up.received) == 2
            records = plane.wait_for(Closed, 2)
            assert [len(r.attempts) for r in records] == [1, 1]  # type: ignore[union-attr]


def test_a_stale_connection_is_replaced_for_a_stream(tmp_path: Path) -> None:
    stale: Script = [ASKED, ("send", whole_stream(transcript("a"))), ASKED, ("reset",)]
    fine: Script = [ASKED, ("send", whole_stream(transcript("b"))), ("expect_close",)]
    with scripted_in_thread(stale, fine) as up, DataPlane(tmp_path / "s", upstream(up.url)) as plane:
        ask(plane, "up/m").check_stream("a")
        ask(plane, "up/m").check_stream("b")


def test_only_once_and_never_on_a_new_connection(tmp_path: Path) -> None:
    stale: Script = [ASKED, ("send", OK_JSON), ASKED, ("reset",)]
    dead: Script = [ASKED, ("reset",)]
    with scripted_in_thread(stale, dead) as up, DataPlane(tmp_path / "s", upstream(up.url)) as plane:
        assert ask(plane, "up/m", stream=False).status == 200
        answer = ask(plane, "up/m", stream=False)
        assert (answer.status, answer.error["code"]) == (502, "upstream_reset")
        assert len(up.requests) == 3


@pytest.mark.parametrize("beginning", [b"H", b"HTTP/1.1 200 OK\r\n", STREAM_HEAD, b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_never_after_a_byte_of_an_answer(tmp_path: Path, beginning: bytes) -> None:
    stale: Script = [ASKED, ("send", OK_JSON), ASKED, ("send", beginning), ("wait", 0.05), ("close",)]
    again: Script = [ASKED, ("send", OK_JSON), ("expect_close",)]
    with scripted_in_thread(stale, again) as up, DataPlane(tmp_path / "s", upstream(up.url)) as plane:
        assert ask(plane, "up/m", stream=False).status == 200
        answer = ask(plane, "up/m")
        assert answer.status == 502, "the request may have been carried out: it must not go out twice"
        assert len(up.requests) == 2


def test_a_connection_closed_while_idle_is_not_used(gate: DataPlane) -> None:
    for _ in range(5):
        assert ask(gate, "up/fault/stale-connection", stream=False).status == 200
        assert ask(gate, "up/fault/stale-connection").events[-1] == "[DONE]"


def test_unsolicited_bytes_close_an_idle_connection(tmp_path: Path) -> None:
    poison = whole_json(document("poison"))
    first: Script = [ASKED, ("send", OK_JSON), ("wait", 0.05), ("send", poison), ("expect_close",)]
    second: Script = [ASKED, ("send", whole_json(document("clean"))), ("expect_close",)]
    with scripted_in_thread(first, second) as up, DataPlane(tmp_path / "s", upstream(up.url)) as plane:
        assert ask(plane, "up/m", stream=False).status == 200
        wait_until(lambda: up.closed_at)
        assert ask(plane, "up/m", stream=False).json["choices"][0]["message"]["content"] == "clean"
        assert len(up.closed_at) == 1


def test_two_answers_in_one_write_are_not_one_answer(tmp_path: Path) -> None:
    """The second one answers nobody; what came for the first is whole, and the connection is not used again."""
    first: Script = [ASKED, ("send", OK_JSON + whole_json(document("poison"))), ("expect_close",)]
    second: Script = [ASKED, ("send", whole_json(document("clean"))), ("expect_close",)]
    with scripted_in_thread(first, second) as up, DataPlane(tmp_path / "s", upstream(up.url)) as plane:
        said = [ask(plane, "up/m", stream=False).json["choices"][0]["message"]["content"] for _ in range(2)]
        assert said == ["hello", "clean"] and len(up.received) == 2


def test_the_cap_and_the_next_free_connection(provider: Provider, tmp_path: Path) -> None:
    row = upstream(provider.url, pool=ConnectionLimits(max_connections=2, wait_s=0.5))
    with DataPlane(tmp_path / "s", row) as plane:
        before = len(provider.requests)
        busy = "up/lorem?rate=50&ttft=0&tokens=10000"
        with opened(plane, request(busy)) as one, opened(plane, request(busy)) as two:
            one.head(), two.head()
            begun = time.monotonic()
            answer = ask(plane, "up/echo")
            assert (answer.status, answer.error["code"]) == (503, "upstream_pool_full")
            assert answer.headers["retry-after"] == "1" and time.monotonic() - begun > 0.45
            with opened(plane, request("up/echo")) as third, opened(plane, request("up/lorem?rate=0&ttft=0")) as fourth:
                time.sleep(0.1)
                one.leave()  # its place is free: a new connection is made for the one who came first
                third.rest().check_stream("say something please")
                fourth.rest().check_stream(lorem.text(120))  # and this one has it after that
        assert len({seen.connection for seen in list(provider.requests)[before:]}) == 3


def test_failed_connect_frees_its_place(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        row = upstream(
            f"https://127.0.0.1:{deaf.getsockname()[1]}/v1", pool=ConnectionLimits(max_connections=1, wait_s=20)
        )
        with (
            DataPlane(tmp_path / "s", row) as plane,
            opened(plane, request("up/m", headgate={"timeout_ms": 300})) as first,
            opened(plane, request("up/m", headgate={"timeout_ms": 1500})) as second,
        ):
            assert first.rest().status == 504
            deaf.settimeout(0.5)  # by then somebody must have dialled for the call that waits
            accepted = [deaf.accept()[0], deaf.accept()[0]]
            assert second.rest().status == 504
            for sock in accepted:
                sock.close()


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b"])
def test_a_host_that_is_no_name_is_answered_at_once(tmp_path: Path, host: str) -> None:
    with DataPlane(tmp_path / "s", upstream(f"http://{host}/v1")) as plane:
        answer = ask(plane, "up/m", stream=False)
        assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")


def test_idle_and_old_connections_are_closed(tmp_path: Path) -> None:
    served: Script = [ASKED, ("send", OK_JSON), ("expect_close",)]
    aged: Script = [ASKED, ("send", OK_JSON), ASKED, ("send", OK_JSON), ("expect_close",)]
    with scripted_in_thread(served) as up:
        row = upstream(up.url, pool=ConnectionLimits(idle_s=0.4))
        with DataPlane(tmp_path / "idle", row) as plane:
            ask(plane, "up/m", stream=False)
            ended = time.monotonic()
            wait_until(lambda: up.closed_at)
            assert up.closed_at[0] - ended > 0.3
    with scripted_in_thread(aged) as up:
        row = upstream(up.url, pool=ConnectionLimits(max_age_s=1.5))
        with DataPlane(tmp_path / "old", row) as plane:
            for expected in (1, 1, 2):
                assert ask(plane, "up/m", stream=False).status == 200
                assert len(up.received) == expected
                time.sleep(1.0)
            assert len(up.closed_at) == 1


def test_an_old_connection_is_not_handed_to_the_one_who_waits(tmp_path: Path) -> None:
    first: Script = [ASKED, ("wait", 0.5), ("send", OK_JSON), ("expect_close",)]
    second: Script = [ASKED, ("send", OK_JSON), ("expect_close",)]
    with scripted_in_thread(first, second) as up:
        row = upstream(up.url, pool=ConnectionLimits(max_connections=1, max_age_s=0.2))
        with DataPlane(tmp_path / "s", row) as plane, opened(plane, request("up/m", stream=False)) as one:
            time.sleep(0.1)
            with opened(plane, request("up/m", stream=False)) as two:
                assert (one.rest().status, two.rest().status) == (200, 200)
            assert len(up.received) == 2 and len(up.closed_at) == 1


def test_a_server_that_closes_as_soon_as_it_is_connected(tmp_path: Path) -> None:
    """Again and again, and none of these connections stays counted."""
    with scripted_in_thread([("close",)], host="127.0.0.1") as up:
        row = upstream(up.url, pool=ConnectionLimits(max_connections=2, wait_s=0.2))
        with DataPlane(tmp_path / "s", row) as plane:
            for _ in range(6):
                answer = ask(plane, "up/m")
                assert (answer.status, answer.error["code"]) == (502, "upstream_reset"), answer.raw


# ------------------------------------------------------------------------------- framing

FRAMINGS: dict[str, bytes] = {
    "trailers": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    + chunked(document())
    + b"0\r\nx-cost: 1\r\ncontent-type: text/event-stream\r\n\r\n",
    "chunk extensions": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    + b"%x;a=b\r\n%b\r\n0;last\r\n\r\n" % (len(document()), document()),
    "100 and 103 first": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OK_JSON,
    "1.0": b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + document(),
    "no length at all": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + document(),
    "connection: close": whole_json(document(), b"connection: close"),
    "no reason phrase": b"HTTP/1.1 200\r\n" + OK_JSON.partition(b"\r\n")[2],
    "no content type": b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(document()), document()),
}


@pytest.mark.parametrize("name", FRAMINGS)
def test_framing_that_is_understood(tmp_path: Path, name: str) -> None:
    script: Script = [ASKED, ("send", FRAMINGS[name]), ("close",)]
    for answer in through(tmp_path, script, calls=2):
        assert answer.json["choices"][0]["message"]["content"] == "hello"


def test_a_close_delimited_stream(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    answers = through(tmp_path, [ASKED, ("send", head + transcript("a")), ("close",)], stream=True, calls=2)
    for answer in answers:
        answer.check_stream("a")


def test_a_close_delimited_stream_that_is_reset_is_a_cut(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    half = chunk_event({"content": "a"})
    script: Script = [ASKED, ("send", head + half), ("wait", 0.05), ("reset",)]
    through(tmp_path, script, stream=True)[0].check_truncated("upstream_cut")


GARBAGE: dict[str, tuple[bytes, str]] = {
    "two lengths": (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\ncontent-length: 5\r\n\r\nhello",
        "upstream_invalid_response",
    ),
    "a length and chunks": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "upstream_invalid_response",
    ),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "upstream_invalid_response"),
    "a bad chunk size": (STREAM_HEAD + b"zz\r\n", "upstream_invalid_response"),
    "a body shorter than its length": (whole_json(document()).replace(b"length: ", b"length: 9"), "upstream_cut"),
    "an upgrade": (
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\x81\x05hello",
        "upstream_invalid_response",
    ),
    "a head without end": (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, "upstream_invalid_response"),
    "nothing": (b"", "upstream_reset"),
}  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", GARBAGE)
def test_framing_that_is_not(tmp_path: Path, name: str, stream: bool) -> None:
    data, code = GARBAGE[name]
    script: Script = [ASKED, ("send", data), ("wait", 0.1), ("close",)]
    with scripted_in_thread(script) as up, DataPlane(tmp_path / "s", upstream(up.url)) as plane:
        answer = ask(plane, "up/m", stream=stream)
        assert (answer.status, answer.error["code"]) == (502, code)
        record = plane.wait_for(Closed)[0]
        assert isinstance(record, Closed) and (record.outcome, record.code) == ("failed", code)
