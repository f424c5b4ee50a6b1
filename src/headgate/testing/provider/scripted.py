"""An upstream that follows a script, byte for byte: for tests that need exactly these bytes in exactly these writes.

A script is a sequence of steps, one script per connection in the order of their arrival (the last one serves all
further connections):

    ("expect_request",)   waits for a whole HTTP request      ("send", bytes)   one write
    ("wait", seconds)     does nothing                        ("half_close",)   FIN for our direction
    ("expect_close",)     waits until the client has left     ("close",)        FIN for both
                                                              ("reset",)        RST

A script that ends without ``close`` or ``reset`` closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal

import httptools

from headgate.testing.provider.server import ReceivedRequest

Step = (
    tuple[Literal["send"], bytes]
    | tuple[Literal["wait"], float]
    | tuple[Literal["expect_request", "expect_close", "half_close", "close", "reset"]]
)
Script = Sequence[Step]


class _RequestCallbacks:
    """httptools' callbacks for one request after the other."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.done: list[ReceivedRequest] = []
        self._url, self._headers, self._body = b"", list[tuple[str, str]](), b""

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", [], b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        method, version = self.parser.get_method().decode("ascii"), self.parser.get_http_version()
        self.done.append(ReceivedRequest(method, self._url.decode("latin-1"), version, self._headers, self._body))


class ScriptedUpstream:
    """The running upstream.

    ``requests``: the requests that scripts waited for.  ``received``: the raw bytes of each connection.  ``closed_at``:
    the time (``time.monotonic()``) at which each ``expect_close`` saw the client leave.  ``failures``: the failed
    steps, in words; a test should assert that it is empty.
    """

    def __init__(self, scripts: Sequence[Script]) -> None:
        if not scripts:
            raise ValueError("a scripted upstream needs at least one script")
        self._scripts = list(scripts)
        self.host, self.port = "", 0
        self.requests: list[ReceivedRequest] = []
        self.received: list[bytearray] = []
        self.closed_at: list[float] = []
        self.failures: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    async def until(self, condition: Callable[[ScriptedUpstream], object], within: float = 5.0) -> None:
        """Wait until ``condition(self)`` holds; it is checked after each step.  Raises TimeoutError."""
        async with asyncio.timeout(within):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Play the next script on a new connection."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        number = len(self.received)
        self.received.append(bytearray())
        reading = _RequestCallbacks()
        for step in self._scripts[min(number, len(self._scripts) - 1)]:
            try:
                await self._perform(step, number, reader, writer, reading)
            except (OSError, EOFError, httptools.HttpParserError) as error:
                self.failures.append(f"connection {number}: {step[0]}: {error!r}")
                break
            finally:
                self._changed.set()
        writer.close()

    async def _perform(
        self,
        step: Step,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        reading: _RequestCallbacks,
    ) -> None:
        match step:
            case ("send", bytes(data)):
                writer.write(data)
                await writer.drain()
            case ("wait", int() | float() as seconds):
                await asyncio.sleep(seconds)
            case ("expect_request",):
                await self._request(number, reader, reading)
            case ("expect_close",):
                await self._expect_close(number, reader)
            case ("half_close",):
                writer.write_eof()
            case ("close",):
                writer.close()
            case ("reset",):
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            case _:
                raise ValueError(f"no such step: {step!r}")

    async def _request(self, number: int, reader: asyncio.StreamReader, reading: _RequestCallbacks) -> None:
        while not reading.done:
            data = await reader.read(65536)
            if not data:
                raise EOFError("the client left in the middle of a request")
            self.received[number] += data
            reading.parser.feed_data(data)
        self.requests.append(reading.done.pop(0))

    async def _expect_close(self, number: int, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.received[number] += data
        self.closed_at.append(time.monotonic())


@contextlib.asynccontextmanager
async def scripted(*scripts: Script, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[ScriptedUpstream]:
    """Serve the scripts in the running loop until the block is left."""
    upstream = ScriptedUpstream(scripts)
    server = await asyncio.start_server(upstream.connected, host, port)
    upstream.host, upstream.port = server.sockets[0].getsockname()[:2]
    try:
        yield upstream
    finally:
        server.close()
        running = tuple(upstream.tasks)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
