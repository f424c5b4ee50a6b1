"""What the happy path costs in Python: one whole answer, and one event of a stream, without a kernel in between.

Drives the real listener, exchange, transport and journal through transports that only count, sixteen connections at a
time as the loop would.  Microseconds move with the machine; bytecodes executed do not, so those are what a test can
hold to.

    python bench/happy_path.py [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from headgate.dialects.openai_chat.prompt import ChatPrompt
from headgate.model import Budget, Call, CallLimits, DataSettings, Grant, Limits, Price, Provider, Snapshot
from headgate.policy.auth import digest
from headgate.serving.call.exchange import Exchange
from headgate.serving.call.receipt import Ids
from headgate.serving.client.connection import Connection
from headgate.serving.client.listener import Listener
from headgate.serving.loop.turn import Turn
from headgate.serving.loop.wheel import Wheel
from headgate.serving.public.routes import Routes
from headgate.serving.public.streams import Streams
from headgate.serving.replay.keeper import ReplayKeeper
from headgate.serving.uplink.directory import SnapshotDirectory
from headgate.serving.uplink.journal import Journal, Refusals
from headgate.serving.upstream.carriers import HTTP, Carriers
from headgate.serving.upstream.connection import HttpUpstream
from headgate.serving.upstream.dialler import Dialer
from headgate.serving.upstream.transport import Pool, Transport
from headgate.testing.opcodes import opcodes

CONNECTIONS = 16
UNLIMITED = Grant("t", "bench")
LIMITED = Grant(
    "t", "bench", limits=CallLimits(rpm=10**9, tpm=10**12, parallel=1000), budget=Budget(10**18, mode="hard")
)
TOKEN = b"hg_test_0123456789abcdef0123456789abcdef"
QUESTION = "Explain how a suspension bridge carries load, in plain words, for a curious reader. "
TEXT = "The quick brown fox jumps over the lazy dog and then rests in the shade of a tall tree. " * 6
CHUNK_HEAD = '{"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":['


class CountingTransport:
    """Stands where a socket would: takes bytes, sends none."""

    def __init__(self, sent: list[CountingTransport]) -> None:
        self._sent = sent
        self.protocol: Any = None
        self.bytes = 0

    def get_extra_info(self, name: str) -> None:
        return None

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        return None

    def write(self, data: bytes) -> None:
        self.bytes += len(data)
        if self.protocol is not None:
            self._sent.append(self)

    def writelines(self, buffers: list[bytes]) -> None:
        for data in buffers:
            self.write(data)

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """The bench ends with streams under way."""


class Bench:
    """The data plane's parts on counting transports."""

    def __init__(self, folder: Path, grant: Grant, price: Price, api: Api) -> None:
        loop = asyncio.get_running_loop()
        self.turn = Turn(loop)
        wheel = Wheel(loop)
        provider = Provider("up", "http://127.0.0.1:9/v1", auth="none", price=price, dialect=api.name)
        key = bytes(32)
        directory = SnapshotDirectory(key, Snapshot(0, {digest(key, TOKEN): grant}, {"up": provider}), {})
        directory.counters.restored = True  # nothing was spent before
        settings = DataSettings(str(folder))
        journal = Journal(folder, settings.worker, "0", self.turn)
        refusals = Refusals(journal)
        transport = Transport(directory, Dialer({}), wheel, self.turn)
        replay = ReplayKeeper(wheel, settings.limits, directory.digester)
        exchange = Exchange(
            directory, journal, refusals, Carriers({HTTP: transport}), wheel, settings.limits, Ids(1), replay
        )
        streams = Streams(replay, directory)
        routes = Routes(exchange, directory, None, refusals, (), dict, streams)  # type: ignore[arg-type]  # no control
        listener = Listener(routes, wheel, self.turn, Limits())
        self.sent: list[CountingTransport] = []
        attempt = directory.router.plan(Call({}, "up/m", False, False, ChatPrompt({}, 0)), grant).attempts[0]
        pool = transport._route(attempt, api.path)[0]
        for _ in range(CONNECTIONS):
            self._add_upstream(pool)
        self.clients = [Connection(listener) for _ in range(CONNECTIONS)]
        for client in self.clients:
            client.connection_made(CountingTransport([]))  # type: ignore[arg-type]

    def _add_upstream(self, pool: Pool) -> None:
        connection = HttpUpstream(pool)
        transport = CountingTransport(self.sent)
        transport.protocol = connection
        connection.connection_made(transport)  # type: ignore[arg-type]
        pool._members.add(connection)
        pool.put(connection)

    def ask(self, request: bytes) -> list[HttpUpstream]:
        """One request on every connection; gives the upstream connections that were asked."""
        for client in self.clients:
            client.data_received(request)
        self.turn._end()
        asked = [transport.protocol for transport in self.sent]
        self.sent.clear()
        return asked

    def answer(self, asked: list[HttpUpstream], data: bytes) -> None:
        for upstream in asked:
            upstream.get_buffer(65536)[: len(data)] = data
            upstream.buffer_updated(len(data))


def request(api: Api, stream: bool) -> bytes:
    fields: dict[str, object] = {
        "model": "up/m",
        "messages": [{"role": "user", "content": QUESTION * 2}],
        **api.members,
    }
    body = json.dumps({**fields, "stream": True} if stream else fields).encode()
    return (
        b"POST /v1%b HTTP/1.1\r\nHost: gate\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (api.path.encode(), TOKEN, len(body), body)
    )


def whole_answer() -> bytes:
    message = {"role": "assistant", "content": TEXT}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 42, "completion_tokens": 100, "total_tokens": 142}
    answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    body = json.dumps(answer).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def chat_event() -> bytes:
    choice = '{"index":0,"delta":{"role":"assistant","content":" lorem ipsum"},"finish_reason":null}]}'
    return f"data: {CHUNK_HEAD}{choice}\n\n".encode()


def messages_event() -> bytes:
    members = '"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" lorem ipsum"}'
    return f"event: content_block_delta\ndata: {{{members}   }}\n\n".encode()


def messages_head() -> bytes:
    message = '{"id":"m","type":"message","role":"assistant","model":"m","content":[],"usage":{"input_tokens":42}}'
    return (
        f'event: message_start\ndata: {{"type":"message_start","message":{message}}}\n\n'
        'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        '"content_block":{"type":"text","text":""}}\n\n'
    ).encode()


class Api(NamedTuple):
    """An API that both sides speak: its path, what it requires of a request, and an upstream's first and next event."""

    name: str
    path: str
    members: dict[str, object]
    head: bytes
    event: bytes


CHAT = Api("openai_chat", "/chat/completions", {}, b"", chat_event())
MESSAGES = Api("anthropic_messages", "/messages", {"max_tokens": 100}, messages_head(), messages_event())


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def microseconds(work: Callable[[], None], rounds: int = 200) -> float:
    """CPU time of one ``work``; the best of five."""
    best = float("inf")
    for _ in range(5):
        begun = time.process_time()
        for _ in range(rounds):
            work()
        best = min(best, (time.process_time() - begun) / rounds * 1e6)
    return best


async def measure() -> dict[str, float]:
    """Python's share of one call and of one event; of a priced call too, without limits and with them."""
    found = await measure_for(UNLIMITED, Price())
    for name, grant in (("priced", UNLIMITED), ("limited", LIMITED)):
        more = await measure_for(grant, Price(1_000_000_000, 4_000_000_000))
        found |= {f"{name}_{figure}": value for figure, value in more.items()}
    with tempfile.TemporaryDirectory() as folder:
        events = measure_events(Bench(Path(folder), UNLIMITED, Price(), MESSAGES), MESSAGES)
    return found | {f"messages_{figure}": value for figure, value in events.items()}


async def measure_for(grant: Grant, price: Price) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), grant, price, CHAT)
        plain, answer = request(CHAT, stream=False), whole_answer()

        def call() -> None:
            asked = bench.ask(plain)
            bench.answer(asked, answer)
            bench.turn._end()

        for _ in range(50):
            call()
        out = {"call_bytecodes": opcodes(call) / CONNECTIONS, "call_us": microseconds(call) / CONNECTIONS}
        return {name: round(value, 2) for name, value in out.items()} | measure_events(bench, CHAT)


def measure_events(bench: Bench, api: Api) -> dict[str, float]:
    asked = bench.ask(request(api, stream=True))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    bench.answer(asked, head + chunk(api.head) if api.head else head)
    bench.turn._end()
    data = chunk(api.event)

    def events() -> None:
        bench.answer(asked, data)
        bench.turn._end()

    for _ in range(50):
        events()
    out = {"event_bytecodes": opcodes(events) / CONNECTIONS, "event_us": microseconds(events) / CONNECTIONS}
    return {name: round(value, 2) for name, value in out.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    as_json = parser.parse_args().json
    found = asyncio.run(measure())
    if as_json:
        print(json.dumps(found))
        return
    print(f"a whole answer    {found['call_us']:6.1f} µs of Python   {found['call_bytecodes']:6.0f} bytecodes")
    print(f"an event          {found['event_us']:6.1f} µs of Python   {found['event_bytecodes']:6.0f} bytecodes")
    cpu, codes = found["messages_event_us"], found["messages_event_bytecodes"]
    print(f"… of Messages     {cpu:6.1f} µs of Python   {codes:6.0f} bytecodes")
    for name in ("priced", "limited"):
        cpu, codes = found[f"{name}_call_us"], found[f"{name}_call_bytecodes"]
        print(f"… {name:<16}{cpu:6.1f} µs of Python   {codes:6.0f} bytecodes")
    print(f"limits and budgets cost × {found['limited_call_bytecodes'] / found['priced_call_bytecodes']:.3f}")


if __name__ == "__main__":
    main()
