"""A call asks the carrier that its provider names, whatever that is: here one without a socket, beside HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

from headgate.errors import UPSTREAM_CUT, UPSTREAM_RESET, GatewayError
from headgate.model import Alias, Closed, Grant, Limits, ModelRow, Provider, Record, Snapshot, TargetRef
from headgate.policy.auth import digest
from headgate.serving.call.exchange import Exchange
from headgate.serving.call.receipt import Ids
from headgate.serving.client.listener import Listener
from headgate.serving.loop.turn import Turn
from headgate.serving.loop.wheel import Wheel
from headgate.serving.public.routes import Routes
from headgate.serving.public.streams import Streams
from headgate.serving.replay.keeper import ReplayKeeper
from headgate.serving.uplink.directory import SnapshotDirectory
from headgate.serving.uplink.journal import Refusals
from headgate.serving.upstream.carriers import HTTP, Carriers
from headgate.serving.upstream.dialler import Dialer
from headgate.serving.upstream.transport import Transport
from headgate.testing.provider.scripted import scripted
from tests.dataplane import TOKEN
from tests.serving.calls import Answer, chunk_event, document, request, transcript, whole_json
from tests.serving.memory import MemoryCarrier, Script

KEY = bytes(32)
ROLE = chunk_event({"role": "assistant", "content": ""})
HELLO = chunk_event({"content": "Hello "})
RESET = GatewayError(UPSTREAM_RESET, "the link has gone")
CUT = GatewayError(UPSTREAM_CUT, "the link has gone in the middle of an answer")


class Records(list[Record]):
    """A journal that forgets nothing and writes nothing."""

    accepting = True
    running = 0

    def write(self, record: Record) -> None:
        self.append(record)


class Gateway:
    """The data plane's parts in this process.  The alias ``chain`` goes through all providers in turn."""

    def __init__(self, scripts: dict[str, list[Script]], stall: float = 60.0, **providers: Provider) -> None:
        row = ModelRow("m", prefill="trailing", prefill_trims="no")
        named = {name: Provider(name, "", auth="none", carrier="memory", models={"m": row}) for name in scripts}
        providers = {**named, **providers}
        chain = Alias("chain", tuple(TargetRef(f"{name}/m") for name in providers), timeouts={"stall": stall})
        snapshot = Snapshot(0, {digest(KEY, TOKEN.encode()): Grant("t", "test")}, providers, {"chain": chain})
        loop = asyncio.get_running_loop()
        self.wheel, self.turn = Wheel(loop), Turn(loop)
        self.records = Records()
        directory = SnapshotDirectory(KEY, snapshot, {})
        transport = Transport(directory, Dialer({}), self.wheel, self.turn)
        self.memory = MemoryCarrier(self.wheel, scripts)
        carriers = Carriers({HTTP: transport, "memory": self.memory})
        journal = cast(Any, self.records)
        refusals, replay = Refusals(journal), ReplayKeeper(self.wheel, Limits(), directory.digester)
        exchange = Exchange(directory, journal, refusals, carriers, self.wheel, Limits(), Ids(1), replay)
        routes = Routes(exchange, directory, cast(Any, None), refusals, (), dict, Streams(replay, directory))
        self.listener = Listener(routes, self.wheel, self.turn, Limits())
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.listener.start(self.sock)

    async def ask(self, model: str = "chain", **fields: Any) -> Answer:
        reader, writer = await asyncio.open_connection(*self.sock.getsockname())
        writer.write(request(model, "Connection: close", headgate={}, **fields))
        async with asyncio.timeout(20):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        raw = unchunked(body) if "transfer-encoding" in headers else body
        return Answer(int(status.split()[1]), headers, raw, True)

    @property
    def receipt(self) -> Closed:
        (found,) = [record for record in self.records if isinstance(record, Closed)]
        return found


def unchunked(data: bytes) -> bytes:
    out = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        out, data = out + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return out


@contextlib.asynccontextmanager
async def gateway(
    scripts: dict[str, list[Script]], stall: float = 60.0, **providers: Provider
) -> AsyncIterator[Gateway]:
    running = Gateway(scripts, stall, **providers)
    try:
        yield running
    finally:
        await running.listener.drain(5)
        await running.listener.close()
        running.wheel.close()


def test_a_whole_answer_and_a_stream_come_by_another_carrier() -> None:
    async def play() -> None:
        async with gateway({"p": [document("hello"), [transcript("Hello ", "world"), b""]]}) as running:
            whole = await running.ask("p/m", stream=False)
            assert whole.status == 200 and whole.json["choices"][0]["message"]["content"] == "hello"
            (await running.ask("p/m")).check_stream("Hello world")
            assert [asking.released for asking in running.memory.asked] == [[True], [True]]

    asyncio.run(play())


def test_a_call_fails_over_from_another_carrier_to_http() -> None:
    async def play() -> None:
        answer = whole_json(document("by http"), b"connection: close")
        async with scripted([("expect_request",), ("send", answer), ("close",)]) as http:
            row = ModelRow("m")
            provider = Provider("h", http.url, auth="none", models={"m": row})
            async with gateway({"p": [RESET, RESET]}, h=provider) as running:
                found = await running.ask(stream=False)
                assert found.json["choices"][0]["message"]["content"] == "by http"
                assert [one.provider for one in running.receipt.attempts][-1] == "h"

    asyncio.run(play())


def test_a_stream_that_breaks_is_continued_by_the_same_carrier() -> None:
    async def play() -> None:
        scripts: dict[str, list[Script]] = {"p": [[ROLE + HELLO, CUT]], "q": [[transcript("world"), b""]]}
        async with gateway(scripts) as running:
            (await running.ask()).check_stream("Hello world")
            assert [one.provider for one in running.receipt.attempts] == ["p", "q"]
            assert b'"Hello' in running.memory.asked[1].body
            assert [asking.released for asking in running.memory.asked] == [[False], [True]]

    asyncio.run(play())


def test_a_stall_is_noticed_without_a_socket() -> None:
    async def play() -> None:
        scripts: dict[str, list[Script]] = {"p": [[ROLE + HELLO]], "q": [[transcript("world"), b""]]}
        async with gateway(scripts, stall=0.2) as running:
            (await running.ask()).check_stream("Hello world")
            assert "upstream_timeout" in [one.code for one in running.receipt.attempts]

    asyncio.run(play())


def test_an_unknown_carrier_is_an_error_of_its_provider() -> None:
    async def play() -> None:
        row = ModelRow("m")
        provider = Provider("u", "http://127.0.0.1:9/v1", auth="none", carrier="pigeon", models={"m": row})
        async with gateway({"p": [document("hello")]}, u=provider) as running:
            found = await running.ask("u/m", stream=False)
            assert (found.status, found.error["code"]) == (502, "upstream_unreachable")
            assert "pigeon" in found.error["message"]

    asyncio.run(play())
