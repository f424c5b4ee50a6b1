"""An upstream that replays files: a process of its own, so that it shares no interpreter with the client under test.

    python -m tests.conformance.replay FOLDER    prints the port that it listens on, ends when its standard input does

The model names the file: ``stream:<cutting>:<file>`` is sent as an event stream in the pieces that
``recordings.cut`` gives, each a chunk and a write of its own; ``body:<status>:<file>`` whole, as JSON.
``clock:<events>:<seconds>`` sends so many events, so long apart, each saying when it was written
(``time.monotonic_ns``: one clock for all processes of a machine).
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from pathlib import Path

from tests.conformance import recordings

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
GAP_EVERY = 16  # pieces between two turns of the loop: what is written in one turn may still arrive in one read


class Replay:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = int(head.partition("content-length:")[2].partition("\r")[0])
                model = json.loads(await reader.readexactly(length))["model"]
                await self.answer(model, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the gateway has closed its connection
        finally:
            writer.close()

    async def answer(self, model: str, writer: asyncio.StreamWriter) -> None:
        kind, how, name = model.split(":", 2)
        if kind == "body":
            body = (self.folder / name).read_bytes()
            head = f"HTTP/1.1 {how} Replayed\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            return
        writer.write(STREAM_HEAD)
        if kind == "clock":
            await self.clock(int(how), float(name), writer)
        else:
            for number, piece in enumerate(recordings.cut((self.folder / name).read_bytes(), how)):
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                if number % GAP_EVERY == 0:
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")

    async def clock(self, events: int, gap: float, writer: asyncio.StreamWriter) -> None:
        for _ in range(events):
            piece = self.event({"content": str(time.monotonic_ns())}, None)
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(gap)
        last = self.event({}, "stop") + b"data: [DONE]\n\n"
        writer.write(b"%x\r\n%b\r\n" % (len(last), last))

    @staticmethod
    def event(delta: dict[str, str], finish: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"


async def main() -> None:
    server = await asyncio.start_server(Replay(Path(sys.argv[1])).connected, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
