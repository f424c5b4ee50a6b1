"""How the tests of this folder speak to a data process and see what its upstream saw: bytes out, events in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from functools import cached_property
from typing import Any

from headgate.model import Closed, Snapshot, Timeouts
from headgate.policy.auth import digest
from headgate.testing import Script, ScriptedUpstream, Seen, exchanges, scripted
from headgate.wire.receipt_ids import bare
from tests.dataplane import TOKEN, DataPlane, post
from tests.waiting import wait_until

PATH = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "say something please"}]
DONE = "[DONE]"


# The tests of this folder are of single attempts, unless they say otherwise (``headgate={}``)
ONCE = {"retries": 0, "on_midstream_failure": "error"}


def body(model: str, *, stream: bool = True, **fields: object) -> bytes:
    fields = {"headgate": ONCE, **fields}
    return json.dumps({"model": model, "messages": MESSAGES, "stream": stream, **fields}).encode()


def request(model: str, *headers: str, stream: bool = True, token: str = TOKEN, **fields: object) -> bytes:
    return post(PATH, body(model, stream=stream, **fields), *headers, token=token)


class Answer:
    """A response as it came: ``raw`` is the body without its framing, ``ended`` whether the framing was completed."""

    def __init__(self, status: int, headers: dict[str, str], raw: bytes, ended: bool) -> None:
        self.status, self.headers, self.raw, self.ended = status, headers, raw, ended

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error

    @cached_property
    def events(self) -> list[Any]:
        """The payloads of a stream, decoded; checks that there is nothing but whole data events and comments."""
        return events_of(self.raw)

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event != DONE]

    @property
    def text(self) -> str:
        return "".join(
            choice["delta"].get("content") or "" for chunk in self.chunks for choice in chunk.get("choices", ())
        )

    @property
    def finishes(self) -> list[str]:
        return [c["finish_reason"] for chunk in self.chunks for c in chunk["choices"] if c["finish_reason"]]

    def check_stream(self, text: str, finish: str = "stop") -> None:
        """The contract's minimum for a stream that went well."""
        assert self.status == 200 and self.ended
        assert self.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert self.text == text
        assert self.finishes == [finish]
        assert self.events[-1] == DONE and self.events.count(DONE) == 1
        first, *others = self.chunks
        assert first["choices"][0]["delta"]["role"] == "assistant"
        assert not any("role" in choice["delta"] for chunk in others for choice in chunk["choices"])
        assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in others} <= {
            (first["id"], first["created"], first["model"])
        }
        assert self.headers["x-headgate-stream-id"] == first["id"]

    def check_truncated(self, code: str) -> dict[str, Any]:
        """A stream that failed after its first byte: said so, ended properly, and without [DONE]."""
        assert self.status == 200 and self.ended and DONE not in self.events
        last = self.events[-1]
        assert set(last) == {"error"} and last["error"]["code"] == code, last
        assert last["error"]["request_id"] == self.headers["x-headgate-stream-id"]
        assert not any("error" in chunk for chunk in self.events[:-1])
        found: dict[str, Any] = last["error"]
        return found


def events_of(raw: bytes) -> list[Any]:
    assert raw.endswith(b"\n\n"), raw[-200:]
    found: list[Any] = []
    for block in raw[:-2].split(b"\n\n"):
        if block.startswith(b":"):
            continue
        assert block.startswith(b"data: ") and b"\n" not in block, block[:200]
        payload = block[6:]
        found.append(DONE if payload == b"[DONE]" else json.loads(payload))
    return found


class Stream:
    """One call under way, read piece by piece."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.raw = b""
        self.headers: dict[str, str] = {}
        self.status = 0

    def head(self) -> Stream:
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
        return self

    def until(self, text: bytes) -> Stream:
        """Reads the body up to and with ``text`` (what stands in one event stands in one chunk)."""
        while text not in self.raw + self.buffer:
            self._more()
        return self

    def rest(self) -> Answer:
        """Everything up to the end of this response."""
        if not self.status:
            self.head()
        ended = True
        try:
            if self.headers.get("transfer-encoding") == "chunked":
                self._chunks()
            elif "content-length" in self.headers:
                while len(self.buffer) < int(self.headers["content-length"]):
                    self._more()
                size = int(self.headers["content-length"])
                self.raw, self.buffer = self.buffer[:size], self.buffer[size:]
            elif self.status not in (204, 304):
                while data := self.sock.recv(65536):
                    self.buffer += data
                self.raw, self.buffer = self.buffer, b""
        except (EOFError, ConnectionError):
            ended = False
        return Answer(self.status, self.headers, self.raw, ended)

    def _chunks(self) -> None:
        parts: list[bytes] = []
        data = bytearray(self.buffer)
        self.buffer = b""

        def more() -> None:
            got = self.sock.recv(1 << 20)
            if not got:
                raise EOFError
            data.extend(got)

        try:
            while True:
                while (at := data.find(b"\r\n")) < 0:
                    more()
                size = int(data[:at], 16)
                while len(data) < at + 2 + size + 2:
                    more()
                parts.append(bytes(data[at + 2 : at + 2 + size]))
                assert data[at + 2 + size : at + 4 + size] == b"\r\n"
                del data[: at + 4 + size]
                if not size:
                    self.buffer = bytes(data)
                    return
        finally:
            self.raw = b"".join(parts)

    def _more(self) -> None:
        data = self.sock.recv(1 << 20)
        if not data:
            raise EOFError("the gateway closed the connection")
        self.buffer += data

    def leave(self, how: str = "fin") -> float:
        """Closes; returns the instant (``time.monotonic()``)."""
        if how == "rst":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        at = time.monotonic()
        self.sock.close()
        return at


@contextlib.contextmanager
def opened(plane: DataPlane, data: bytes, timeout: float = 10) -> Iterator[Stream]:
    """A connection on which ``data`` has been sent."""
    with plane.connect(timeout) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(data)
        yield Stream(sock)


def ask(plane: DataPlane, model: str, *headers: str, **fields: Any) -> Answer:
    """One call on a connection of its own, whole."""
    with opened(plane, request(model, *headers, **fields), timeout=30) as stream:
        return stream.rest()


def closed_by_id(plane: DataPlane, ident: str, seconds: float = 30) -> Closed:
    """The Closed record of one call; waits for it."""

    def closed() -> list[Closed]:
        return [record for record in plane.records() if isinstance(record, Closed) and record.id == bare(ident)]

    found = wait_until(closed, seconds, step=0.02, why=f"no Closed for {ident}")
    assert len(found) == 1, f"{ident} was closed {len(found)} times"
    return found[0]


def at_once(plane: DataPlane) -> float:
    """How long may be called at once, in seconds: a hundred health questions take longer, one after the other, on this
    machine and now.  50 ms where nothing else runs.
    """
    with plane.connect(30) as sock:
        begun = time.monotonic()
        for _ in range(100):
            sock.sendall(b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n")
            sock.recv(65536)
        return max(0.05, time.monotonic() - begun)


def last_closed(plane: DataPlane) -> Closed:
    """The newest Closed record that is there right now: nothing is waited for."""
    found = [record for record in plane.records() if isinstance(record, Closed)]
    return found[-1]


@contextlib.contextmanager
def scripted_in_thread(*scripts: Script, host: str = "127.0.0.1", port: int = 0) -> Iterator[ScriptedUpstream]:
    """``testing.provider.scripted`` for plain code.  Its lists may be read from here; ``until`` may not be used."""
    started: Future[tuple[ScriptedUpstream, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        stop = asyncio.Event()
        try:
            async with scripted(*scripts, host=host, port=port) as upstream:
                started.set_result((upstream, asyncio.get_running_loop(), stop))
                await stop.wait()
        except OSError as error:
            started.set_exception(error)

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="scripted upstream", daemon=True)
    thread.start()
    upstream, loop, stop = started.result(10)
    try:
        yield upstream
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


class ProviderProcess:
    """``python -m headgate.testing``: ``url`` is its base URL, ``seen()`` what it has been asked."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "headgate.testing", "--port", "0", "--keep", "20000"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1].removesuffix("/v1\n"))
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def seen(self) -> list[Seen]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/__seen", timeout=10) as answer:
            return [one for one in exchanges(answer.read()) if one.method == "POST"]

    def reset(self) -> None:
        urllib.request.urlopen(f"http://127.0.0.1:{self.port}/__reset", data=b"", timeout=10).close()

    def __enter__(self) -> ProviderProcess:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()
        self.process.wait(10)


# ------------------------------------------------------------------------------- what an upstream says


def chunk_event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    value = {
        "id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": "m-up",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more,
    }  # fmt: skip
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def transcript(*texts: str) -> bytes:
    return b"".join(
        (
            chunk_event({"role": "assistant", "content": ""}),
            *(chunk_event({"content": text}) for text in texts),
            chunk_event({}, "stop"),
            b"data: [DONE]\n\n",
        )
    )


def document(text: str = "hello") -> bytes:
    return json.dumps(
        {
            "id": "up-1", "object": "chat.completion", "created": 1, "model": "m-up",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
        }
    ).encode()  # fmt: skip


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole_json(data: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    extra = b"".join(field + b"\r\n" for field in fields)
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b" % (
        status, len(data), extra, data,
    )  # fmt: skip


def whole_stream(data: bytes, *fields: bytes) -> bytes:
    """A stream's bytes with a length, in one piece."""
    extra = b"".join(field + b"\r\n" for field in fields)
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n%b\r\n%b" % (
        len(data), extra, data,
    )  # fmt: skip


def timeouts(plane_key: bytes, providers: dict[str, Any], grant: Any, **seconds: float) -> Snapshot:
    """A world with these deadlines for everyone."""
    return Snapshot(0, {digest(plane_key, TOKEN.encode()): grant}, providers, timeouts=Timeouts(**seconds))
