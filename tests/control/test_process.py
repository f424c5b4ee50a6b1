"""The control process as a whole: started over its boot socket, driven over HTTP, the channel and the journal, and
killed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from headgate.control.snapshot.compose import compose
from headgate.model import Grant, Refused
from headgate.policy.auth import digest
from headgate.process import boot
from headgate.process.boot import DrainGateway, Failed, Ready
from headgate.process.channel import (
    Ack,
    Ask,
    AskReply,
    Down,
    Gauges,
    Hello,
    Patch,
    Secrets,
    SnapshotPart,
    Up,
    World,
    down_frames,
    frame,
)
from headgate.process.credentials import instance_key
from tests.control.child import ADMIN, SECRET, Child, compiled
from tests.control.journal_writer import SECOND, Writer, closed, ident, opened, query
from tests.waiting import wait_until


def declared(world: World) -> list[str]:
    """The aliases that are not shipped ones."""
    return [name for name, alias in world.aliases.items() if alias.origin != "shipped"]


class DataProcess:
    """Connects, says Hello and keeps what it is told, as a data process does; ``pump`` hears and acks."""

    def __init__(self, state: Path, worker: str = "w0") -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(str(state / "channel.sock"))
        self._sock.settimeout(30)
        self._frames = down_frames()
        self.tokens: dict[bytes, Grant] = {}
        self.secrets: dict[str, str] = {}
        self.aliases: list[str] = []
        self.generation = 0
        self.answers: dict[int, AskReply] = {}
        self.say(Hello(worker, "b0", 0, os.getpid()))
        self.until(lambda: self.generation > 0)

    def say(self, *messages: Up) -> None:
        self._sock.sendall(b"".join(map(frame, messages)))

    def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            data = self._sock.recv(65536)
            assert data, "control has closed the channel"
            for message in self._frames.feed(data):
                self._take(message)

    def ask(self, kind: str, grant: str, **params: str) -> tuple[int, dict[str, Any]]:
        number = len(self.answers) + 1
        self.say(Ask(number, kind, grant, 2.0, params))
        self.until(lambda: number in self.answers)
        return self.answers[number].status, json.loads(self.answers[number].body)

    def _take(self, message: Down) -> None:
        match message:
            case Secrets(keys):
                self.secrets = dict(keys)
            case SnapshotPart():
                if message.world is not None:
                    self.tokens, self.aliases = {}, declared(message.world)
                self.tokens.update(message.tokens)
                if message.last:
                    self._acknowledge(message.generation)
            case Patch():
                assert message.base == self.generation
                for gone in message.removed_tokens:
                    del self.tokens[gone]
                self.tokens.update(message.tokens)
                if message.world is not None:
                    self.aliases = declared(message.world)
                self._acknowledge(message.generation)
            case AskReply(number):
                self.answers[number] = message

    def _acknowledge(self, generation: int) -> None:
        self.generation = generation
        self.say(Ack(generation))

    def close(self) -> None:
        self._sock.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """One control process for the tests that only talk to it."""
    with Child(tmp_path_factory.mktemp("state")) as child:
        yield child


@pytest.fixture
def data(shared: Child) -> Iterator[DataProcess]:
    process = DataProcess(shared.state)
    yield process
    process.close()


# ---------------------------------------------------------------------------------------------- the admin API's door


def routes(child: Child) -> list[tuple[str, str]]:
    paths = child.call("GET", "/openapi.json", None).json()["paths"]
    return [(method.upper(), path.replace("{ident}", "x")) for path, methods in paths.items() for method in methods]


def test_every_route_needs_a_credential(shared: Child) -> None:
    known = [route for route in routes(shared) if route[1] not in ("/livez", "/readyz", "/admin/v1/login")]
    assert len(known) >= 5
    for method, path in [
        *known,
        ("GET", "/nowhere"),
        ("GET", "/admin/v1/tokens/"),
        ("POST", "/docs/../admin/v1/reload"),
    ]:
        for token, code in (
            (None, "missing"),
            ("wrong", "invalid"),
            ("hg_pat_0_x", "invalid"),
            (ADMIN + "x", "invalid"),
        ):
            answer = shared.call(method, path, token)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
            error = answer.json()["error"]
            assert error["code"] == f"{code}_admin_token"
            assert set(error) == {"message", "type", "param", "code"}


def test_probes_and_docs_need_no_token(shared: Child) -> None:
    assert shared.call("GET", "/livez", None).json() == {"status": "ok"}
    assert shared.call("GET", "/docs", None).status_code == 200
    assert shared.call("GET", "/readyz", None).status_code == 503  # no data process
    process = DataProcess(shared.state)
    assert shared.call("GET", "/readyz", None).status_code == 200
    process.close()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x", "scopes": ["admin"]}, "scopes"),
        ({"name": "x", "expires": 1}, "expires"),
        ({"name": "x", "expires": 99_999_999_999_999}, "expires"),  # no milliseconds
        ({"name": "x", "expires": "soon"}, "expires"),
        ({"name": "x", "expires": True}, "expires"),
        ({"name": "x", "budget": {"usd": -5}}, "budget.usd"),
        ({"name": "x", "models": ["m"] * 101}, "models"),
    ],
)
def test_a_wish_that_cannot_be_kept_is_refused_by_name(shared: Child, body: dict[str, Any], param: str) -> None:
    answer = shared.call("POST", "/admin/v1/tokens", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_value", param)


@pytest.mark.parametrize("given", [60_479_395_200, "60479395200", "3886-07-08", "3886-07-08T02:00:00+02:00"])
def test_instants_are_unix_seconds_however_large(shared: Child, given: Any) -> None:
    made = shared.call("POST", "/admin/v1/tokens", json={"name": f"until {given!r}", "expires": given}).json()
    assert made["expires"] == 60_479_395_200


def test_a_body_without_a_length_has_the_same_limit(shared: Child) -> None:
    for pieces, expected in ((1, 201), (20, 413)):
        body = [b'{"name": "of %d pieces"' % pieces, b" " * 65_536, *[b" " * 65_536] * (pieces - 1), b"}"]
        headers = {"authorization": f"Bearer {ADMIN}", "content-type": "application/json"}
        answer = httpx2.post(
            f"{shared.url}/admin/v1/tokens", content=iter(body), headers=headers, trust_env=False, verify=False
        )
        assert answer.status_code == expected, answer.text
    assert (answer.json()["error"]["code"], answer.json()["error"]["message"]) == (
        "payload_too_large",
        "The body may have 1 MiB at most.",
    )


def test_errors_have_one_shape(shared: Child) -> None:
    for method, path, status, code in (
        ("GET", "/nowhere", 404, "route_not_found"),
        ("PUT", "/admin/v1/tokens", 405, "method_not_allowed"),
        ("DELETE", "/admin/v1/tokens/nobody", 404, "token_not_found"),
    ):
        answer = shared.call(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    answer = shared.call("POST", "/admin/v1/tokens", content=b"{")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


# ------------------------------------------------------------------------------------------------------------- tokens


def test_token_is_shown_once_and_effective(shared: Child, data: DataProcess) -> None:
    import threading

    done = threading.Event()

    def pump() -> None:
        data.until(lambda: any(grant.name == "mine" for grant in data.tokens.values()))
        data.until(lambda: all(grant.name != "mine" for grant in data.tokens.values()))
        done.set()

    thread = threading.Thread(target=pump)
    thread.start()
    wish = {"name": "mine", "scopes": ["gate:chat"], "models": ["headgate/chat"], "expires": "2099-01-01T00:00:00Z"}
    answer = shared.call("POST", "/admin/v1/tokens", json=wish)
    made = answer.json()
    assert answer.status_code == 201
    assert (made["effective"], made["pending"], made["expires"]) == (True, False, 4070908800.0)
    assert re.fullmatch(rf"hg_pat_{made['id']}_[A-Za-z0-9_-]{{43}}", made["token"])
    grant = data.tokens[digest(instance_key(shared.state), made["token"].encode())]
    assert (grant.id, grant.name, grant.scopes) == (made["id"], "mine", ("gate:chat",))
    assert (grant.models, grant.expires, grant.origin) == (("headgate/chat",), 4070908800.0, "store")

    listed = shared.call("GET", "/admin/v1/tokens").text
    assert made["id"] in listed and made["token"] not in listed

    gone = shared.call("DELETE", f"/admin/v1/tokens/{made['id']}")
    assert gone.json() == {
        "object": "headgate.token.revoked",
        "id": made["id"],
        "effective": True,
        "pending": False,
    }
    assert done.wait(5)
    thread.join()
    assert shared.call("DELETE", f"/admin/v1/tokens/{made['id']}").status_code == 404
    assert made["id"] not in shared.call("GET", "/admin/v1/tokens").text
    everything = shared.call("GET", "/admin/v1/tokens?include_revoked=true").json()["data"]
    assert [entry["revoked"] is not None for entry in everything if entry["id"] == made["id"]] == [True]


def test_without_a_data_process_a_token_is_pending(shared: Child) -> None:
    made = shared.call("POST", "/admin/v1/tokens", json={"name": "later"}).json()
    assert (made["effective"], made["pending"]) == (False, True)
    process = DataProcess(shared.state)
    assert "later" in {grant.name for grant in process.tokens.values()}
    process.close()


def test_first_token_is_adopted_once(tmp_path: Path) -> None:
    token = "hg_pat_0a1b2c3d_" + "x" * 43
    generations = []
    for _ in range(2):
        with Child(tmp_path, first_token=token) as child:
            data = DataProcess(tmp_path)
            grant = data.tokens[digest(instance_key(tmp_path), token.encode())]
            assert (grant.id, grant.name) == ("0a1b2c3d", "first")
            assert len(child.call("GET", "/admin/v1/tokens").json()["data"]) == 1
            generations.append(data.generation)
            data.close()
            assert child.end() == 0
    assert generations[0] < generations[1]
    assert stat.S_IMODE((tmp_path / "instance.key").stat().st_mode) == 0o600


# ------------------------------------------------------------------------------------------------------ configuration


def test_the_file_is_watched_and_a_bad_one_keeps_the_last_good(tmp_path: Path) -> None:
    with Child(tmp_path) as child:
        data = DataProcess(tmp_path)
        before = data.generation
        secret = digest(instance_key(tmp_path), b"hg_test_declared_in_the_file").hex()
        child.configure("chat", tokens={secret: "ci"}, key="sk-new")
        data.until(lambda: data.aliases == ["chat"])
        assert data.secrets == {"up-a/0": "sk-new"}
        assert data.generation > before
        answer = child.call("DELETE", "/admin/v1/tokens/ci")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "managed_by_file")
        assert child.call("GET", "/admin/v1/tokens").json()["data"][0]["origin"] == "file"

        child.config.write_text("{ this is not JSON")
        answer = child.call("POST", "/admin/v1/reload")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_config")
        time.sleep(1.5)  # the watch finds it too
        health = child.call("GET", "/admin/v1/health").json()
        assert health["config"]["reload_error"] and health["generation"] == data.generation
        assert child.log.read_text().count("the last good one stays") == 1

        child.configure("chat", "code", tokens={})
        os.kill(child.process.pid, signal.SIGHUP)
        data.until(lambda: data.aliases == ["chat", "code"])
        assert not data.tokens
        assert child.call("GET", "/admin/v1/health").json()["config"]["reload_error"] is None
        unchanged = child.call("POST", "/admin/v1/reload").json()
        assert (unchanged["changed"], unchanged["effective"], unchanged["generation"]) == (False, True, data.generation)
        data.close()


def test_a_blocked_store_delays_a_reload_and_ends_nothing(tmp_path: Path) -> None:
    """A change that waits for the store takes five seconds, and who waits behind two of them gives up before."""
    with Child(tmp_path) as child:
        data = DataProcess(tmp_path)
        blocker = sqlite3.connect(tmp_path / "headgate.db", isolation_level=None)
        with closing(blocker) as other, ThreadPoolExecutor() as pool:
            other.execute("BEGIN IMMEDIATE")
            waiting = []
            for name in "ab":
                waiting.append(pool.submit(child.call, "POST", "/admin/v1/tokens", json={"name": name}, timeout=30))
                time.sleep(1)
            child.configure("late")
            os.kill(child.process.pid, signal.SIGHUP)
            wait_until(lambda: "was not reloaded: the store cannot be used" in child.log.read_text())
            other.execute("ROLLBACK")
            assert {answer.result().status_code for answer in waiting} <= {201, 503}
        data.until(lambda: data.aliases == ["late"])
        data.close()
        assert child.end() == 0


# ------------------------------------------------------------------------------------------- questions and the journal


def test_client_finds_its_own_requests(shared: Child, data: DataProcess) -> None:
    writer = Writer(shared.state / "journal", "w0-asking")
    writer.write(opened(1, grant="asker", label="my-label"), closed(1), opened(2, grant="asker", label="my-label"))
    status, found = data.ask("request", "asker", id=f"chatcmpl-{ident(1)}")
    assert status == 200 and data.ask("request", "asker", id=ident(1)) == (200, found)
    assert found["object"] == "headgate.request"
    assert (found["id"], found["model"], found["requested_model"]) == (
        f"chatcmpl-{ident(1)}",
        "big-0613",
        "headgate/chat",
    )
    assert (found["outcome"], found["status"], found["provider"], found["stream"]) == ("delivered", 200, "up-a", True)
    assert found["cost_usd"] == 0.00011
    assert found["timings_ms"] == {"total": 1000.0, "queue": None, "connect": None, "ttfb": None, "ttft": 250.0}
    assert found["usage"]["total_tokens"] == 100 and found["usage"]["basis"] == "provider"
    assert [attempt["status"] for attempt in found["attempts"]] == [200]
    assert "up-a/0" not in json.dumps(found)  # the operator's accounts are not a client's business

    status, found = data.ask("request", "asker", id="my-label")  # the latest
    assert (status, found["id"], found["outcome"]) == (200, f"chatcmpl-{ident(2)}", None)
    for grant, name in (("other", ident(1)), ("other", "my-label"), ("asker", "chatcmpl-nobody"), ("asker", "nothing")):
        status, found = data.ask("request", grant, id=name)
        assert (status, found["error"]["code"], found["error"]["param"]) == (404, "request_not_found", None)

    writer.write(closed(2, cost=-1))
    status, used = data.ask("usage", "asker")
    assert status == 200
    assert (used["requests"], used["prompt_tokens"], used["completion_tokens"]) == (2, 180, 20)
    assert (used["cost_usd"], used["unpriced_requests"]) == (0.00011, 1)
    assert used["since"] == 1_750_000_000
    status, used = data.ask("usage", "newcomer")
    assert (used["requests"], used["cost_usd"], used["since"]) == (0, 0.0, None)
    writer.die()


def test_health_says_what_is_connected_recorded_and_refused(shared: Child, data: DataProcess) -> None:
    writer = Writer(shared.state / "journal", "w0-health")
    writer.write(Refused(int(time.time()) * SECOND, "invalid_api_key", 41))
    data.say(Gauges(time.time_ns(), {"streams": 3.0}))
    data.ask("usage", "anyone")  # everything before it has been read then
    health = shared.call("GET", "/admin/v1/health").json()
    assert [(worker["worker"], worker["gauges"]) for worker in health["workers"]] == [("w0", {"streams": 3.0})]
    assert health["workers"][0]["generation"] == health["generation"] == data.generation
    assert health["refusals"]["codes"] == {"invalid_api_key": 41}
    assert health["recorder"]["records_behind"] == 0 and health["recorder"]["error"] is None
    writer.die()


# -------------------------------------------------------------------------------------------------- starting and ending


def test_sigterm_records_what_the_journal_holds_and_ends_with_0(tmp_path: Path) -> None:
    with Child(tmp_path) as child:
        writer = Writer(tmp_path / "journal")
        writer.write(*(record for number in range(500) for record in (opened(number), closed(number))))
        assert child.end() == 0
        counted = query(tmp_path / "headgate.db", "SELECT count(*) AS n FROM requests WHERE outcome = 'delivered'")
        assert counted == [{"n": 500}]


def test_it_ends_when_its_supervisor_is_gone(tmp_path: Path) -> None:
    with Child(tmp_path) as child:
        child.sock.close()
        assert child.process.wait(60) == 0


def test_killed_and_started_again_it_goes_on(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "journal")
    with Child(tmp_path) as child:
        writer.write(opened(1))
        wait_until(lambda: query(tmp_path / "headgate.db", "SELECT id FROM requests"))
        child.process.kill()
        child.process.wait()
    writer.write(closed(1), opened(2), closed(2))
    with Child(tmp_path):
        data = DataProcess(tmp_path)
        assert [data.ask("request", "g1", id=ident(n))[1]["outcome"] for n in (1, 2)] == ["delivered"] * 2
        data.close()


def test_a_port_in_use_is_failure_3(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Child(tmp_path, port=port) as child:
            assert isinstance(child.answer, Failed)
            assert child.answer.code == child.process.wait(60) == 3
            assert str(port) in child.answer.message and "control.port" in child.answer.message


def test_bad_file_at_control_restart_keeps_the_last(tmp_path: Path) -> None:
    with Child(tmp_path) as child:
        child.configure("chat", tokens={"aa" * 32: "ci"})
        good = compose(0, compiled(child.config), {})
    child.config.write_text("{ this is not JSON")
    with Child(tmp_path, declared=good, secrets={"up-a/0": "sk-kept"}) as child:
        data = DataProcess(tmp_path)
        wait_until(
            lambda: child.call("GET", "/admin/v1/health").json()["config"]["reload_error"]
        )  # the watch's first look
        assert data.aliases == ["chat"] and list(data.tokens) == [b"\xaa" * 32]
        assert data.secrets == {"up-a/0": "sk-kept"}
        assert child.log.read_text().count("the last good one stays") == 1
        data.close()


def test_a_bad_store_is_failure_4(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "headgate.db").write_bytes(b"this is no database, whatever its name says" * 100)
    with Child(store) as child:
        assert isinstance(child.answer, Failed)
        assert child.answer.code == child.process.wait(60) == 4
        assert "headgate.db" in child.answer.message


def test_no_log_line_and_no_column_holds_a_secret(tmp_path: Path) -> None:
    with Child(tmp_path, log_level="debug", log_format="json") as child:
        data = DataProcess(tmp_path)
        made = child.call("POST", "/admin/v1/tokens", json={"name": "x"}).json()["token"]
        child.call("GET", "/admin/v1/tokens", "hg_pat_wrong_canary")
        data.close()
        assert isinstance(child.answer, Ready)
        assert child.end() == 0
    lines = child.log.read_text().splitlines()
    assert lines and all(json.loads(line)["event"] for line in lines)
    files = [path for path in tmp_path.iterdir() if path.is_file() and path.name != "headgate.json"]
    for path in files:
        content = path.read_bytes()
        for secret in (made, SECRET, ADMIN, "hg_pat_wrong_canary"):
            assert secret.encode() not in content, path.name
    assert {stat.S_IMODE(path.stat().st_mode) for path in files if path.name.startswith("headgate.db")} == {0o600}


def test_drain_asks_the_supervisor(tmp_path: Path) -> None:
    with Child(tmp_path) as child:
        assert child.call("POST", "/admin/v1/drain", json={}).status_code == 202
        child.sock.settimeout(30)
        message, _fds = boot.receive(child.sock, DrainGateway)
    assert message == DrainGateway()


def test_control_starts_without_fastapi() -> None:
    """The link to the data process waits for no library of the admin API."""
    code = "import sys, headgate.control.process; print('fastapi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
