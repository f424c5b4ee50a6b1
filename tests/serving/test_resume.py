"""A stream that outlives its connection: read on from any event, by whom, for how long, and who stops it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from headgate.model import Closed, Limits
from headgate.policy.auth import digest
from headgate.serving.replay.stream import MOST_READERS
from headgate.testing import Provider
from tests.dataplane import TOKEN, DataPlane, upstream
from tests.serving.calls import Stream, ask, at_once, closed_by_id, opened, request
from tests.serving.resuming import AUTH, OTHER, EventSource, alias, get, get_bytes, numbered, plain, plane, read_events
from tests.waiting import wait_until, wait_until_steady

SHORT = "up/lorem?rate=400&ttft=0&tokens=24"
LONG = "up/lorem?rate=100&ttft=0&tokens=5000"
ALIASES = (
    alias("short", SHORT, resumable_s=20.0),
    alias("long", LONG, resumable_s=20.0),
    alias("brief", LONG, resumable_s=0.4),
    alias("quick", "up/lorem?rate=20000&ttft=0&tokens=40000", resumable_s=20.0),
    alias("flood", "up/lorem?rate=0&ttft=0&tokens=60000", resumable_s=20.0),
)


@pytest.fixture(scope="module")
def gate(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    with plane(tmp_path_factory.mktemp("resume") / "s", upstream(provider.url), *ALIASES) as running:
        yield running
        assert running.process.poll() is None, "the data process ended during the tests"


@pytest.fixture
def client(gate: DataPlane) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gate.url}/v1", api_key=TOKEN, max_retries=0, timeout=20) as client:
        yield client


def path_of(stream: Stream) -> str:
    return f"/v1/streams/{stream.headers['x-headgate-stream-id']}"


# ------------------------------------------------------------------------------- what it looks like


def test_events_are_numbered_only_where_that_was_asked_for(gate: DataPlane) -> None:
    bare = ask(gate, SHORT)
    assert b"id: " not in bare.raw and "x-headgate-stream-url" not in bare.headers
    for answer in (ask(gate, "short"), ask(gate, SHORT, headgate={"resumable_s": 5})):
        events = numbered(answer.raw)
        assert [number for number, _ in events] == list(range(1, len(events) + 1))
        assert plain([payload for _, payload in events]) == plain(
            [block.removeprefix(b"data: ") for block in bare.raw[:-2].split(b"\n\n")]
        )
    off = ask(gate, "short", headgate={"resumable_s": 0})
    assert b"id: " not in off.raw and "x-headgate-stream-url" not in off.headers


def test_the_official_client_reads_it(client: openai.OpenAI, gate: DataPlane) -> None:
    bare = ask(gate, SHORT).text
    chunks = list(
        client.chat.completions.create(model="short", messages=[{"role": "user", "content": "x"}], stream=True)
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == bare


# ------------------------------------------------------------------------------- at every event


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_resumed_at_every_event_it_equals_the_unbroken_one(gate: DataPlane, how: str) -> None:
    whole = ask(gate, "short")
    unbroken = plain([payload for _, payload in numbered(whole.raw)])
    for at in range(len(unbroken)):
        with opened(gate, request("short")) as stream:
            first = read_events(stream, at)
            stream.leave(how)
        if at % 2:
            rest = get(gate, f"{path_of(stream)}?after={at}", AUTH)
        else:
            fields = [f"Last-Event-ID: {stream.headers['x-headgate-stream-id']}.{at}"] if at else []
            rest = get(gate, path_of(stream), AUTH, *fields)
        assert rest.status == 200 and rest.ended and rest.headers["x-headgate-stream-id"] in path_of(stream)
        events = numbered(first + rest.raw)
        assert [number for number, _ in events] == list(range(1, len(unbroken) + 1))
        assert plain([payload for _, payload in events]) == unbroken
        assert closed_by_id(gate, rest.headers["x-headgate-stream-id"]).outcome == "delivered"
        assert get(gate, f"{path_of(stream)}?after={len(unbroken)}", AUTH).status == 204


@pytest.mark.parametrize("most", [1, 2, 7])
def test_an_event_source_that_is_cut_again_and_again(gate: DataPlane, most: int) -> None:
    unbroken = plain([payload for _, payload in numbered(ask(gate, "short").raw)])
    with opened(gate, request("short")) as stream:
        stream.head()
        stream.leave("rst")
    source = EventSource(gate, stream.headers["x-headgate-stream-url"])
    while len(source.messages) < len(unbroken):
        source.connect(min(most, len(unbroken) - len(source.messages)))
    assert plain([message.encode() for message in source.messages]) == unbroken
    source.run()
    assert source.state == "closed" and len(source.messages) == len(unbroken)  # 204: it does not come back


def test_several_readers_each_at_their_own_pace(gate: DataPlane) -> None:
    with opened(gate, request("up/lorem?rate=200&ttft=0&tokens=120", headgate={"resumable_s": 20})) as first:
        first.head()
        with (
            opened(gate, get_bytes(path_of(first), AUTH)) as second,
            opened(gate, get_bytes(f"{path_of(first)}?after=0", AUTH)) as third,
        ):
            read_events(third, 5)
            third.leave("rst")
            fourth = get(gate, f"{path_of(first)}?after=5", AUTH)
            whole, same = first.rest(), second.rest()
    assert whole.raw == same.raw and whole.ended and same.ended
    assert numbered(whole.raw)[5:] == numbered(fourth.raw)


def test_there_is_a_bound_of_readers(gate: DataPlane) -> None:
    with opened(gate, request("long")) as stream:
        stream.head()
        readers = [gate.connect() for _ in range(MOST_READERS)]
        for sock in readers:
            sock.sendall(get_bytes(path_of(stream), AUTH))
        statuses = [Stream(sock).head().status for sock in readers]
        for sock in readers:
            sock.close()
        assert sorted(statuses) == [200] * (MOST_READERS - 1) + [503]
        stream.leave()


# ------------------------------------------------------------------------------- slow and silent clients


def test_a_half_open_client_holds_nobody_who_comes_back(provider: Provider, tmp_path: Path) -> None:
    """Its network is gone without a FIN, so its upstream waits for it; whoever resumes sets that going again."""
    limits = Limits(replay_per_stream=64 << 20)
    with plane(tmp_path / "s", upstream(provider.url), *ALIASES, limits=limits) as gate:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.connect(("127.0.0.1", gate.port))
        sock.sendall(request("flood"))
        silent = Stream(sock).head()
        level = wait_until_steady(lambda: provider.requests[-1].tokens)  # the upstream is held
        assert level < 60000
        rest = get(gate, path_of(silent), AUTH, timeout=60)
        assert len(numbered(rest.raw)) == 60003 and rest.ended
        sock.settimeout(30)
        assert silent.rest().raw == rest.raw  # and when it can read again, it gets all of it too
        sock.close()


def test_a_reader_that_is_too_slow_is_cut_and_slows_nobody(gate: DataPlane) -> None:
    with opened(gate, request("quick"), timeout=60) as stream:
        stream.head()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.connect(("127.0.0.1", gate.port))
        sock.sendall(get_bytes(path_of(stream), AUTH))
        slow = Stream(sock).head()
        whole = stream.rest()
    assert len(numbered(whole.raw)) == 40003 and whole.ended
    sock.settimeout(30)
    cut = slow.rest()
    assert cut.ended and b"[DONE]" not in cut.raw
    last = cut.raw[:-2].rpartition(b"\n\n")[2]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "stream_expired"
    assert whole.raw.startswith(cut.raw[: -len(last) - 2])
    sock.close()


# ------------------------------------------------------------------------------- who may


def test_who_may_read_a_stream(gate: DataPlane) -> None:
    answer = ask(gate, "short")
    path = f"/v1/streams/{answer.headers['x-headgate-stream-id']}"
    for method in ("GET", "DELETE"):
        assert get(gate, path, f"Authorization: Bearer {OTHER}", method=method).error["code"] == "stream_not_found"
        assert get(gate, path, method=method).status == 401
    plain = ask(gate, SHORT).headers["x-headgate-stream-id"]
    for unknown in (plain, "chatcmpl-000000000000000000000000", "x" * 300):
        found = get(gate, f"/v1/streams/{unknown}", AUTH)
        assert (found.status, found.error["code"]) == (404, "stream_not_found")
    assert get(gate, f"/api/gate/v1/streams/{path[12:]}", AUTH).raw == answer.raw == get(gate, path[3:], AUTH).raw
    assert get(gate, path.replace("chatcmpl-", ""), AUTH).raw == answer.raw
    assert get(gate, path, AUTH, method="POST").status == 405


def test_a_signed_link_stands_for_the_token(gate: DataPlane) -> None:
    answer = ask(gate, "short")
    link = answer.headers["x-headgate-stream-url"]
    assert get(gate, link).raw == answer.raw
    assert numbered(get(gate, f"{link}&after=3").raw) == numbered(answer.raw)[3:]
    other = ask(gate, "short").headers["x-headgate-stream-id"]
    forged = link.replace(answer.headers["x-headgate-stream-id"], other)
    for bad in (link[:-1] + ("0" if link[-1] != "0" else "1"), forged, link.replace("expires=", "expires=9")):
        assert get(gate, bad).status == 401
    ident = answer.headers["x-headgate-stream-id"]
    old = str(int(time.time()) - 1)
    signature = digest(gate.key, f"stream\0{ident.removeprefix('chatcmpl-')}\0{old}".encode()).hex()
    found = get(gate, f"/v1/streams/{ident}?expires={old}&signature={signature}")
    assert (found.status, found.error["code"]) == (410, "stream_expired")
    asked = ask(gate, SHORT, headgate={"resumable_s": 5})
    assert asked.headers["x-headgate-stream-url"].startswith("/v1/streams/")


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("?after=x", ()), ("?after=-1", ()), ("?after=", ()), ("?after=99999", ()), ("?from=3", ()),
        ("", ("Last-Event-ID: chatcmpl-000000000000000000000000.3",)), ("", ("Last-Event-ID: 3",)),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(gate: DataPlane, query: str, fields: tuple[str, ...]) -> None:
    with opened(gate, request("long")) as stream:
        stream.head()
        answer = get(gate, path_of(stream) + query, AUTH, *fields)
        assert (answer.status, answer.error["code"]) == (400, "invalid_value")
        stream.leave()


def test_what_makes_no_sense_is_refused_of_a_finished_stream_too(gate: DataPlane) -> None:
    """It must not be told that it has everything."""
    answer = ask(gate, "short")
    ident, last = answer.headers["x-headgate-stream-id"], len(numbered(answer.raw))
    path = f"/v1/streams/{ident}"
    assert get(gate, f"{path}?after={last}", AUTH).status == 204
    assert get(gate, path, AUTH, f"Last-Event-ID: {ident}.{last} ").status == 204
    assert get(gate, f"{path}?after={last + 1}", AUTH).error["code"] == "invalid_value"
    assert get(gate, path, AUTH, f"Last-Event-ID: {ident}.{last + 1}").error["code"] == "invalid_value"


def test_an_id_is_all_that_follows(gate: DataPlane) -> None:
    ident = ask(gate, "short").headers["x-headgate-stream-id"]
    assert get(gate, f"/v1/streams/%63{ident[1:]}", AUTH).status == 200
    for path in (f"/v1/streams/x/{ident}", f"/v1/streams//{ident}", f"/v1/streams/{ident}/", f"/v1/streams/{ident}%00"):
        for method in ("GET", "DELETE"):
            assert get(gate, path, AUTH, method=method).error["code"] == "stream_not_found"
    assert get(gate, f"/v1/streams/{ident}", AUTH).status == 200


def test_what_was_missed_comes_in_pieces_that_its_client_takes(provider: Provider, tmp_path: Path) -> None:
    """However much there is: what it has not read yet is not held for it a second time."""
    limits = Limits(replay_per_stream=16 << 20, replay_max=256 << 20)
    with plane(tmp_path / "s", upstream(provider.url), *ALIASES, limits=limits) as gate:
        with opened(gate, request("flood"), timeout=60) as stream:
            whole = stream.rest()
        assert len(whole.raw) > 12 << 20
        before = gate.rss_kb()
        readers = []
        for _ in range(12):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            sock.connect(("127.0.0.1", gate.port))
            sock.sendall(get_bytes(path_of(stream), AUTH))
            readers.append(Stream(sock).head())
        time.sleep(0.5)
        assert gate.rss_kb() - before < 8 << 10
        readers[0].sock.settimeout(30)
        assert readers[0].rest().raw == whole.raw
        for reader in readers:
            reader.leave()


def test_browsers_are_told_that_they_may(provider: Provider, tmp_path: Path) -> None:
    with DataPlane(tmp_path / "s", upstream(provider.url), cors_origins=("https://app.example",)) as gate:
        for path, method in (("/v1/streams/x", "DELETE"), ("/v1/chat/completions", "POST")):
            answer = get(
                gate, path, "Origin: https://app.example", f"Access-Control-Request-Method: {method}", method="OPTIONS"
            )
            allowed = answer.headers["access-control-allow-headers"]
            assert answer.status == 204 and "idempotency-key" in allowed and "last-event-id" in allowed
            assert method in answer.headers["access-control-allow-methods"]


# ------------------------------------------------------------------------------- how long


def test_delete_stops_the_generation(gate: DataPlane, provider: Provider) -> None:
    with opened(gate, request("long")) as stream:
        stream.head().until(b"dolor")
        seen = provider.requests[-1]
        at = time.monotonic()
        answer = get(gate, path_of(stream), AUTH, method="DELETE")
        ident = stream.headers["x-headgate-stream-id"]
        assert answer.json == {"id": ident, "object": "headgate.stream", "status": "stopped"}
        wait_until(lambda: seen.how)
        assert seen.how == "client_closed" and seen.ended_at is not None and seen.ended_at - at < 10 * at_once(gate)
        rest = stream.rest()
    assert rest.ended and b"[DONE]" not in rest.raw
    last = json.loads(rest.raw[:-2].rpartition(b"\n\n")[2].removeprefix(b"data: "))
    assert set(last) == {"error"} and last["error"]["code"] == "stream_stopped"
    record = closed_by_id(gate, ident)
    assert record.outcome == "cancelled" and record.completion_tokens > 0
    assert get(gate, path_of(stream), AUTH).error["code"] == "stream_expired"


def test_delete_of_a_finished_stream_changes_nothing(gate: DataPlane) -> None:
    answer = ask(gate, "short")
    path = f"/v1/streams/{answer.headers['x-headgate-stream-id']}"
    assert get(gate, path, AUTH, method="DELETE").json["status"] == "finished"
    assert get(gate, path, AUTH).raw == answer.raw


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_without_anybody_it_ends_with_its_grace(gate: DataPlane, provider: Provider, how: str) -> None:
    with opened(gate, request("brief")) as stream:
        read_events(stream, 3)
        seen = provider.requests[-1]
        left = stream.leave(how)
    wait_until(lambda: seen.how)
    assert seen.ended_at is not None and seen.ended_at - left >= 0.3  # the clock ticks every 50 ms
    record = closed_by_id(gate, stream.headers["x-headgate-stream-id"])
    assert (record.outcome, record.status) == ("cancelled", 499) and record.completion_tokens >= 20
    assert get(gate, path_of(stream), AUTH).error["code"] == "stream_expired"


def test_whoever_comes_back_in_time_keeps_it_going(gate: DataPlane, provider: Provider) -> None:
    with opened(gate, request("brief")) as stream:
        read_events(stream, 3)
        seen = provider.requests[-1]
        stream.leave()
    for _ in range(3):
        time.sleep(0.2)
        with opened(gate, get_bytes(path_of(stream), AUTH)) as back:
            back.head()
            time.sleep(0.6)  # longer than the grace
            back.leave("rst")
    assert not seen.how
    wait_until(lambda: seen.how)


def test_before_its_head_there_is_nothing_to_come_back_to(gate: DataPlane, provider: Provider) -> None:
    before = len(provider.requests)
    with opened(gate, request("up/fault/accept-silence", headgate={"resumable_s": 30})) as stream:
        wait_until(lambda: len(provider.requests) > before)
        left = stream.leave()
    seen = provider.requests[-1]
    wait_until(lambda: seen.how)
    assert seen.ended_at is not None and seen.ended_at - left < 10 * at_once(gate)


def test_it_is_kept_for_a_while_after_its_end(provider: Provider, tmp_path: Path) -> None:
    with plane(tmp_path / "s", upstream(provider.url), *ALIASES, limits=Limits(replay_ttl=0.5)) as gate:
        answer = ask(gate, "short")
        path = f"/v1/streams/{answer.headers['x-headgate-stream-id']}"
        assert get(gate, path, AUTH).raw == answer.raw
        wait_until(lambda: get(gate, path, AUTH).status == 410)
        assert get(gate, path, f"Authorization: Bearer {OTHER}").status == 404
        expired = get(gate, answer.headers["x-headgate-stream-url"])
        assert expired.error["code"] == "stream_expired"


# ------------------------------------------------------------------------------- how much


def test_the_oldest_events_go_first(provider: Provider, tmp_path: Path) -> None:
    with plane(tmp_path / "s", upstream(provider.url), *ALIASES, limits=Limits(replay_per_stream=1000)) as gate:
        answer = ask(gate, "short")
        events = numbered(answer.raw)
        path = f"/v1/streams/{answer.headers['x-headgate-stream-id']}"
        gone = get(gate, path, AUTH)
        assert (gone.status, gone.error["code"]) == (410, "stream_expired")
        first = next(n for n in range(len(events)) if get(gate, f"{path}?after={n}", AUTH).status == 200)
        kept = get(gate, f"{path}?after={first}", AUTH).raw
        assert 5 < first < len(events) - 5 and numbered(kept) == events[first:]


def test_without_room_a_stream_is_like_any_other(provider: Provider, tmp_path: Path) -> None:
    with plane(tmp_path / "s", upstream(provider.url), *ALIASES, limits=Limits(replay_max=20_000)) as gate:
        answers = [ask(gate, "short") for _ in range(6)]
        kept = [answer for answer in answers if "x-headgate-stream-url" in answer.headers]
        assert 2 <= len(kept) < 6 and kept == answers[: len(kept)]
        for answer in answers[len(kept) :]:
            answer.check_stream(ask(gate, SHORT).text)
        assert get(gate, kept[0].headers["x-headgate-stream-url"]).raw == kept[0].raw


def test_what_runs_for_nobody_ends_with_the_process(provider: Provider, tmp_path: Path) -> None:
    with plane(tmp_path / "s", upstream(provider.url), *ALIASES) as gate:
        with opened(gate, request("long")) as stream:
            read_events(stream, 3)
            seen = provider.requests[-1]
            stream.leave()
        time.sleep(0.1)
        assert not seen.how
        assert gate.stop() == 0
        assert [r.outcome for r in gate.records() if isinstance(r, Closed)] == ["cancelled"]
        wait_until(lambda: seen.how)


def test_readers_come_and_go_while_it_runs(gate: DataPlane) -> None:
    """Twenty clients at random places of ten streams, leaving and coming back: none ever sees a gap."""
    errors: list[BaseException] = []

    def one(number: int) -> None:
        try:
            with opened(gate, request("up/lorem?rate=150&ttft=0&tokens=60", headgate={"resumable_s": 20})) as stream:
                have = read_events(stream, number % 7)
                stream.leave("rst" if number % 2 else "fin")
            sources = [EventSource(gate, stream.headers["x-headgate-stream-url"]) for _ in range(2)]
            for source in sources:
                while not source.messages or source.messages[-1] != "[DONE]":
                    source.connect(None if source.connections > 3 else 1 + (number * 5) % 11)
            assert sources[0].messages == sources[1].messages and len(sources[0].messages) == 63
            assert [payload.decode() for _, payload in numbered(have)] == sources[0].messages[: number % 7]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors, errors
