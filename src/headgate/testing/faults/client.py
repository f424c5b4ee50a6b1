"""A streaming client that assumes nothing: it records the events, their order and their times.

Used by ``bench``.  It reads HTTP/1.1 and SSE by hand, so that its report of a stream does not depend on a library.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, field

_decode = msgspec.json.Decoder().decode


class Heard(Struct):
    """One answer.  ``at`` has the instant (``time.monotonic()``) of each piece of text; ``broken`` says why there is
    no end.
    """

    began: float = 0.0
    ended: float = 0.0
    status: int = 0
    text: str = ""
    at: list[float] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    roles: int = 0
    finishes: list[str] = field(default_factory=list)
    done: int = 0
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    broken: str = ""

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def summary(self) -> str:
        """A few words for a table."""
        if self.broken:
            return self.broken
        if self.error is not None:
            return f"{self.status} {self.error.get('code')}" + (" after text" if self.text else "")
        return f"{len(self.at)} pieces, {','.join(self.finishes) or 'no finish'}{', [DONE]' * self.done}"

    def take(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            self.done += 1
            return
        chunk = _decode(payload)
        if "error" in chunk:
            self.error = chunk["error"]
            return
        self.ids.add(chunk["id"])
        self.models.add(chunk["model"])
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk["choices"]:
            delta = choice["delta"]
            self.roles += "role" in delta
            if delta.get("content"):
                self.text += delta["content"]
                self.at.append(time.monotonic())
            if choice["finish_reason"]:
                self.finishes.append(choice["finish_reason"])


async def ask(url: str, token: str, body: dict[str, Any], within: float) -> Heard:
    """POST one chat completion on a new connection.  Errors are part of the returned answer."""
    heard = Heard(time.monotonic())
    try:
        async with asyncio.timeout(within):
            await _ask(url, token, body, heard)
    except TimeoutError:
        heard.broken = f"no end within {within:.0f} s"
    except (OSError, EOFError, ValueError, KeyError, msgspec.DecodeError) as error:
        heard.broken = f"{type(error).__name__}: {error}"
    heard.ended = time.monotonic()
    return heard


async def _ask(url: str, token: str, body: dict[str, Any], heard: Heard) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        data = msgspec.json.encode(body)
        writer.write(
            b"POST %b/chat/completions HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (parts.path.encode(), parts.netloc.encode(), token.encode(), len(data), data)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        heard.status = int(head.split(b" ", 2)[1])
        if b"transfer-encoding: chunked" in head.lower():
            await _read_stream(reader, heard)
        else:
            heard.error = _decode(await reader.read())["error"]
    finally:
        writer.close()


async def _read_stream(reader: asyncio.StreamReader, heard: Heard) -> None:
    rest = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        rest += (await reader.readexactly(size + 2))[:-2]
        *events, rest = rest.split(b"\n\n")
        for event in events:
            if event.startswith(b"data:"):
                heard.take(event[5:].strip())
