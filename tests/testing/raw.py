"""A client that hides nothing: the bytes as they came, how the connection ended, and when."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httptools

T = TypeVar("T")
PROMPT = [{"role": "user", "content": "say something please"}]


@dataclass
class Answer:
    """One answer.

    ``ended``: ``complete`` (as its framing says), ``eof``, ``reset``, ``garbage`` or ``open`` (no end within the time).
    """

    raw: bytes = b""
    status: int = 0
    interim: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    pieces: int = 0
    ended: str = "open"
    first_byte_s: float = 0.0
    duration_s: float = 0.0

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def payloads(self) -> list[str]:
        """The data of each event, after the WHATWG rules; an event without its blank line counts too."""
        text = self.body.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        found = []
        for block in text.split("\n\n"):
            lines = [line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
            if lines:
                found.append("\n".join(lines))
        return found

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.payloads if payload != "[DONE]" and _is_json(payload)]

    @property
    def text(self) -> str:
        """What the choices say before [DONE]."""
        said = []
        for payload in self.payloads:
            if payload == "[DONE]":
                break
            if _is_json(payload):
                said += [choice["delta"].get("content") or "" for choice in json.loads(payload).get("choices", [])]
        return "".join(said)

    @property
    def finishes(self) -> list[str]:
        choices = [choice for chunk in self.chunks for choice in chunk.get("choices", [])]
        return [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]


def _is_json(payload: str) -> bool:
    try:
        json.loads(payload)
    except ValueError:
        return False
    return True


class _Reader:
    def __init__(self, answer: Answer) -> None:
        self.answer, self.parser, self.done, self._in_body = answer, httptools.HttpResponseParser(self), False, False

    def on_message_begin(self) -> None:
        self.answer.headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        fields = self.answer.trailers if self._in_body else self.answer.headers
        fields[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        self.answer.status = self.parser.get_status_code()
        self._in_body = self.answer.status >= 200

    def on_body(self, body: bytes) -> None:
        self.answer.body += body
        self.answer.pieces += 1

    def on_message_complete(self) -> None:
        if self.answer.status < 200:
            self.answer.interim.append(self.answer.status)
        else:
            self.done = True


def request(body: Any, path: str = "/v1/chat/completions", method: str = "POST", headers: str = "") -> bytes:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {len(payload)}\r\n\r\n"
    return head.encode() + payload


def chat(model: str, *, stream: bool = True, **more: Any) -> bytes:
    return request(
        {"model": model, "messages": PROMPT, "stream": stream, **more}, headers="authorization: Bearer sk-canary\r\n"
    )


async def read(reader: asyncio.StreamReader, within: float = 120) -> Answer:
    """One answer, or what there is of it after ``within`` seconds."""
    answer = Answer()
    parsing = _Reader(answer)
    begun = time.monotonic()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            await _read(reader, parsing, begun)
    answer.duration_s = time.monotonic() - begun
    return answer


async def _read(reader: asyncio.StreamReader, parsing: _Reader, begun: float) -> None:
    answer = parsing.answer
    while not parsing.done:
        try:
            data = await reader.read(1 << 20)
        except ConnectionResetError:
            answer.ended = "reset"
            return
        if not data:
            answer.ended = "eof"
            return
        answer.first_byte_s = answer.first_byte_s or time.monotonic() - begun
        answer.raw += data
        try:
            parsing.parser.feed_data(data)
        except httptools.HttpParserError:
            answer.ended = "garbage"
            return
    answer.ended = "complete"


async def ask(port: int, data: bytes, within: float = 120) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    try:
        writer.write(data)
        return await read(reader, within)
    finally:
        writer.close()


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(main)
