"""Providers' keys that change while a data process serves: a replaced one brings its account back at once, and an
account whose key is gone is passed over.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from headgate.control.snapshot.compose import parts
from headgate.model import Account, Grant, Provider, Snapshot
from headgate.policy.auth import digest
from headgate.process.channel import Ack, Down, Hello, Secrets, frame, up_frames
from tests.dataplane import TOKEN, DataPlane
from tests.serving.calls import ask
from tests.waiting import wait_until

KEY = b"k" * 32
ANSWER = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip


class Lock:
    """A provider that knows some keys, and remembers which were shown to it."""

    def __init__(self) -> None:
        self.good = {"sk-one", "sk-two"}
        self.shown: list[str] = []
        lock = self

        class Door(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                key = str(self.headers["authorization"]).removeprefix("Bearer ")
                lock.shown.append(key)
                good = key in lock.good
                body = json.dumps(ANSWER if good else {"error": {"message": "bad key"}}).encode()
                self.send_response(200 if good else 401)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Control:
    """The other end of the channel."""

    def __init__(self, state: Path) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(state / "channel.sock"))
        self._server.listen()
        self.heard: list[Any] = []

    def accept(self) -> None:
        self._peer, _ = self._server.accept()
        threading.Thread(target=self._read, daemon=True).start()
        wait_until(lambda: any(isinstance(message, Hello) for message in self.heard))

    def _read(self) -> None:
        frames = up_frames()
        with contextlib.suppress(OSError):
            while data := self._peer.recv(65536):
                self.heard += frames.feed(data)

    def say(self, *messages: Down) -> None:
        self._peer.sendall(b"".join(frame(message) for message in messages))

    def publish(self, generation: int, url: str, accounts: list[str], keys: dict[str, str]) -> None:
        """As control does: the keys before the Snapshot that names them."""
        self.say(Secrets(keys), *parts(world(generation, url, accounts)))
        wait_until(lambda: Ack(generation) in self.heard)

    def close(self) -> None:
        self._peer.close()
        self._server.close()


def world(generation: int, url: str, accounts: list[str]) -> Snapshot:
    rows = tuple(Account(f"p/{label}", label, priority=-place) for place, label in enumerate(accounts))
    return Snapshot(
        generation, {digest(KEY, TOKEN.encode()): Grant("t0", "test")}, {"p": Provider("p", url, accounts=rows)}
    )


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[tuple[Lock, Control, DataPlane]]:
    (tmp_path / "instance.key").write_bytes(KEY)
    lock, control = Lock(), Control(tmp_path)
    keys = {"p/a": "sk-wrong", "p/b": "sk-two"}
    with DataPlane(tmp_path, snapshot=world(0, lock.url, ["a", "b"]), keys=keys) as plane:
        control.accept()
        yield lock, control, plane
        control.close()
    lock.close()


def shown(lock: Lock, plane: DataPlane) -> list[str]:
    """The keys that one good call has shown the provider."""
    lock.shown.clear()
    assert ask(plane, "p/m", stream=False).status == 200
    return list(lock.shown)


def test_a_replaced_key_brings_a_dead_account_back_at_once(scene: tuple[Lock, Control, DataPlane]) -> None:
    lock, control, plane = scene
    assert shown(lock, plane) == ["sk-wrong", "sk-two"]
    assert shown(lock, plane) == ["sk-two"]  # it is not tried again for an hour
    control.publish(2, lock.url, ["a", "b"], {"p/a": "sk-wrong", "p/b": "sk-two"})
    assert shown(lock, plane) == ["sk-two"]  # the same keys again are no news
    control.publish(3, lock.url, ["a", "b"], {"p/a": "sk-one", "p/b": "sk-two"})
    assert shown(lock, plane) == ["sk-one"]


def test_an_account_whose_key_is_gone_is_passed_over(scene: tuple[Lock, Control, DataPlane]) -> None:
    lock, control, plane = scene
    control.publish(2, lock.url, ["a", "b"], {"p/b": "sk-two"})
    assert shown(lock, plane) == ["sk-two"]
    control.publish(3, lock.url, ["a", "b"], {})
    lock.shown.clear()
    refused = ask(plane, "p/m", stream=False)
    assert (refused.status, refused.error["code"]) == (503, "no_provider_key")
    assert "no key for p is known here yet" in refused.error["message"]
    assert refused.headers["retry-after"] == "2" and not lock.shown
    control.publish(4, lock.url, ["a", "b"], {"p/a": "sk-one", "p/b": "sk-two"})
    assert shown(lock, plane) == ["sk-one"]


def test_one_that_comes_and_goes_leaves_nothing_behind(scene: tuple[Lock, Control, DataPlane]) -> None:
    lock, control, plane = scene
    control.publish(2, lock.url, ["b"], {"p/b": "sk-two"})
    assert shown(lock, plane) == ["sk-two"]
    control.publish(3, lock.url, ["new", "b"], {"p/new": "sk-one", "p/b": "sk-two"})
    assert shown(lock, plane) == ["sk-one"]


# ------------------------------------------------------------------------------- headers that are secrets


@contextlib.contextmanager
def complaining() -> Iterator[tuple[str, list[str]]]:
    """A provider that quotes the header X-Team in its complaint, whole and in part; and what it was shown."""
    shown: list[str] = []

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            value = str(self.headers["x-team"])
            shown.append(value)
            body = json.dumps({"error": {"message": f"bad value {value} ({value.split()[-1]}) in x-team"}}).encode()
            self.send_response(400)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", shown
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("value", ["hdr-canary-112233", "Bearer hdr-canary-112233", "Basic aGRyLWNhbmFyeQ=="])
@pytest.mark.parametrize("stream", [True, False])
def test_a_header_that_is_a_secret_is_sent_and_never_quoted(value: str, stream: bool, tmp_path: Path) -> None:
    with complaining() as (url, shown):
        row = Provider("up", url, auth="none", headers={"X-Team": "", "X-Public": "2024-06-01"})
        with DataPlane(tmp_path / "s", row, keys={"up/header:x-team": value}) as plane:
            answer = ask(plane, "up/m", stream=stream)
            assert answer.status == 400 and shown == [value]
            assert value.split()[-1] not in answer.raw.decode() and "bad value" in answer.error["message"]


def test_a_header_whose_value_is_not_known_yet_is_not_left_out(tmp_path: Path) -> None:
    with complaining() as (url, shown):
        row = Provider("up", url, auth="none", headers={"X-Team": ""})
        with DataPlane(tmp_path / "s", row) as plane:
            answer = ask(plane, "up/m")
            assert (answer.status, answer.error["code"]) == (503, "no_provider_key")
        assert shown == []
