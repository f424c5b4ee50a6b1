"""Clients that come back: numbered events, GET and DELETE of a stream, and a browser's EventSource."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from headgate.model import Alias, Grant, Limits, Provider, Snapshot, TargetRef, Timeouts
from headgate.policy.auth import digest
from tests.dataplane import TOKEN, DataPlane
from tests.serving.calls import Answer, Stream, opened

OTHER = "hg_test_ffffffffffffffffffffffffffffffff"
AUTH = f"Authorization: Bearer {TOKEN}"
EVENT = re.compile(rb"id: (chatcmpl-[0-9a-f]{24})\.(\d+)\ndata: ([^\n]*)\n\n")


def world(plane_key: bytes, row: Provider, *aliases: Alias, **seconds: float) -> Snapshot:
    """Two tokens, one provider, these aliases."""
    grants = {TOKEN: Grant("t0", "one"), OTHER: Grant("t1", "two")}
    tokens = {digest(plane_key, token.encode()): grant for token, grant in grants.items()}
    return Snapshot(0, tokens, {row.name: row}, {alias.name: alias for alias in aliases}, timeouts=Timeouts(**seconds))


def alias(name: str, target: str, **fields: object) -> Alias:
    return Alias(name, (TargetRef(target),), **fields)  # type: ignore[arg-type]


def plane(folder: object, row: Provider, *aliases: Alias, limits: Limits | None = None) -> DataPlane:
    """A data process whose second token is ``OTHER``."""
    folder.mkdir(exist_ok=True)  # type: ignore[attr-defined]
    key = b"k" * 32
    (folder / "instance.key").write_bytes(key)  # type: ignore[operator]
    return DataPlane(folder, snapshot=world(key, row, *aliases), limits=limits)  # type: ignore[arg-type]


def numbered(raw: bytes) -> list[tuple[int, bytes]]:
    """(number, payload) of each event; checks that every block is an id line and a data line, of one stream."""
    raw = re.sub(rb"(?m)^:[^\n]*\n\n?", b"", raw)  # keep-alives, and the comment at a seam, which is a line of a block
    found = EVENT.findall(raw)
    assert b"".join(b"id: %b.%b\ndata: %b\n\n" % one for one in found) == raw, raw[:500]
    assert len({ident for ident, _, _ in found}) <= 1
    numbers = [int(number) for _, number, _ in found]
    assert not numbers or numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return [(int(number), payload) for _, number, payload in found]


def plain(payloads: list[bytes]) -> list[object]:
    """Payloads without what differs from call to call."""
    found: list[object] = []
    for payload in payloads:
        if payload == b"[DONE]":
            found.append("[DONE]")
        else:
            chunk = json.loads(payload)
            found.append({**chunk, "id": "", "created": 0})
    return found


def get_bytes(path: str, *fields: str, method: str = "GET") -> bytes:
    lines = "".join(f"{field}\r\n" for field in fields)
    return f"{method} {path} HTTP/1.1\r\nHost: test\r\n{lines}\r\n".encode()


def get(plane: DataPlane, path: str, *fields: str, method: str = "GET", timeout: float = 10) -> Answer:
    with opened(plane, get_bytes(path, *fields, method=method), timeout) as stream:
        return stream.rest()


def read_events(stream: Stream, count: int) -> bytes:
    """The first ``count`` events of a response under way, without its framing."""
    if not stream.status:
        stream.head()
    if stream.headers.get("transfer-encoding") != "chunked":
        return b""
    while True:
        body = unchunked(stream.buffer)
        if body.count(b"\n\n") >= count:
            return b"\n\n".join(body.split(b"\n\n")[:count]) + b"\n\n" if count else b""
        stream._more()


def unchunked(data: bytes) -> bytes:
    """What the complete chunks of ``data`` hold."""
    out, at = b"", 0
    while (line := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line], 16)
        if len(data) < line + 2 + size + 2:
            break
        out += data[line + 2 : line + 2 + size]
        at = line + 2 + size + 2
    return out


class EventSource:
    """What a browser does with a stream (WHATWG HTML §9.2), but for the pause before it reconnects."""

    def __init__(self, plane: DataPlane, path: str) -> None:
        self.plane = plane
        self.path = path
        self.last_event_id = ""
        self.messages: list[str] = []
        self.state = "connecting"
        self.connections = 0

    def connect(self, most: int | None = None) -> None:
        """One connection: reads ``most`` messages (None: to its end) and leaves."""
        fields = [f"Last-Event-ID: {self.last_event_id}"] if self.last_event_id else []
        self.connections += 1
        with opened(self.plane, get_bytes(self.path, "Accept: text/event-stream", *fields)) as stream:
            stream.head()
            if stream.status != 200:
                self.state = "closed" if stream.status == 204 else f"failed {stream.status}"
                return
            raw = stream.rest().raw if most is None else read_events(stream, most)
        for message in self._messages(raw.decode()):
            self.messages.append(message)

    def run(self, most: int | None = None) -> None:
        """Reconnects until it is told not to."""
        while self.state == "connecting":
            self.connect(most)
            assert self.connections < 1000

    def _messages(self, text: str) -> Iterator[str]:
        data: list[str] = []
        ident = self.last_event_id
        for line in text.split("\n"):
            if not line:
                self.last_event_id = ident
                if data:
                    yield "\n".join(data)
                data = []
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            elif name == "id" and "\0" not in value:
                ident = value
