"""The channel's server side, spoken to over a real Unix socket."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from headgate.control.snapshot.compose import compose, difference, parts
from headgate.control.snapshot.hub import MAX_UNSENT, Hub
from headgate.model import Alias, Grant, Provider, Snapshot, Spent
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
    SpentBefore,
    Up,
    Uses,
    World,
    down_frames,
    frame,
)
from headgate.process.frames import LENGTH
from headgate.resources.compiled import Compiled
from tests.control.journal_writer import run
from tests.waiting import eventually

WORLD = World(providers={"up-a": Provider("up-a", "http://127.0.0.1:1/v1")}, aliases={"chat": Alias("chat")})


class Told:
    """A Source whose Snapshot the test sets."""

    uses = Uses({"up-a/big": 3}, {"auto": 3})

    def __init__(self, tokens: int = 3) -> None:
        self.inherited = 0
        self.settled = True
        self.compiled = Compiled(WORLD, {}, {"up-a/0": "sk-canary"})
        self.stored = {str(n).encode().rjust(32, b"0"): Grant(f"g{n}", f"name {n}") for n in range(tokens)}
        self.snapshot: Snapshot = compose(7, self.compiled, self.stored)

    @property
    def secrets(self) -> Mapping[str, str]:
        return self.compiled.secrets

    def add(self) -> Patch:
        old = self.snapshot
        self.stored = {**self.stored, b"n" * 32: Grant("new", "new")}
        self.snapshot = compose(old.generation + 1, self.compiled, self.stored)
        patch = difference(old, self.snapshot)
        assert patch is not None
        return patch


class DataProcess:
    """The other end, as a data process holds it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._frames = down_frames()
        self._got: list[Down] = []

    def say(self, *messages: Up) -> None:
        self._writer.write(b"".join(map(frame, messages)))

    def say_bytes(self, data: bytes) -> None:
        self._writer.write(data)

    async def hear(self) -> Down:
        async with asyncio.timeout(5):
            while not self._got:
                data = await self._reader.read(65536)
                if not data:
                    raise EOFError
                self._got.extend(self._frames.feed(data))
        return self._got.pop(0)

    async def greet(self, worker: str = "w0", ack: bool = True) -> list[SnapshotPart]:
        self.say(Hello(worker, "b0", 0, 4711))
        assert isinstance(await self.hear(), Secrets)
        heard: list[SnapshotPart] = []
        while not heard or not heard[-1].last:
            part = await self.hear()
            assert isinstance(part, SnapshotPart)
            heard.append(part)
        assert isinstance(await self.hear(), Uses)
        if ack:
            self.say(Ack(heard[-1].generation))
        return heard

    def close(self) -> None:
        self._writer.close()


async def answering(ask: Ask) -> tuple[int, bytes]:
    if ask.kind == "slow":
        await asyncio.sleep(30)
    if ask.kind == "broken":
        raise RuntimeError("a defect")
    return 200, json.dumps({"kind": ask.kind, "grant": ask.grant}).encode()


@asynccontextmanager
async def linked(path: Path, told: Told | None = None) -> AsyncIterator[tuple[Hub, Told]]:
    told = told or Told()
    link = Hub(path, told, answering)
    await link.start()
    try:
        yield link, told
    finally:
        await link.close()


async def published(link: Hub, patch: Patch) -> bool:
    link.send_patch(patch)
    return await link.effective(patch.generation)


async def connect(path: Path) -> DataProcess:
    return DataProcess(*await asyncio.open_unix_connection(path))


def test_a_question_about_a_call_goes_to_the_process_that_took_it(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "channel.sock"
        async with linked(path) as (link, _told):
            first, second = await connect(path), await connect(path)
            for data, name, salt in ((first, "w0", "aaaaaaa"), (second, "w1", "bbbbbbb")):
                await data.greet(name)
                data.say(Hello(name, "b0", 7, 4711, salt))
            await eventually(lambda: [worker.salt for worker in link.workers] == ["aaaaaaa", "bbbbbbb"])
            asked = asyncio.create_task(link.ask("x", "", {"id": "chatcmpl-01976f2a5b0bbbbbbb000001"}))
            while not isinstance(question := await second.hear(), Ask):
                pass
            second.say(AskReply(question.id, 200, b"second"))
            answer = await asked
            assert answer is not None and answer.body == b"second"
            for unknown in ("01976f2a5b0ccccccc000001", "a label"):
                assert await link.ask("x", "", {"id": unknown}) is None

    run(main())


def test_hello_is_answered_with_secrets_and_the_whole_snapshot(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "channel.sock"
        async with linked(path) as (link, told):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            data = await connect(path)
            first, second = await data.greet()
            assert (first.seq, first.world, first.generation) == (0, WORLD, 7)
            assert dict(second.tokens) == told.snapshot.tokens
            await eventually(lambda: link.workers and link.workers[0].generation == 7)
            assert (link.workers[0].name, link.workers[0].pid) == ("w0", 4711)

    run(main())


def test_spend_is_sent_only_to_processes_that_ask(tmp_path: Path) -> None:
    """A data process of an earlier build does not ask, and would not know the message."""

    async def spent(hello: Hello) -> list[SpentBefore]:
        return [SpentBefore(False, (Spent("token:a", hello.since, 5),)), SpentBefore(True)]

    async def main() -> None:
        link = Hub(tmp_path / "channel.sock", Told(), answering, spent)
        await link.start()
        try:
            old, new = await connect(tmp_path / "channel.sock"), await connect(tmp_path / "channel.sock")
            new.say(Hello("w0", "b0", 0, 4711, since=7.0))
            heard: list[Down] = []
            while not (heard and isinstance(heard[-1], SpentBefore) and heard[-1].last):
                heard.append(await new.hear())
            told = [message for message in heard if isinstance(message, SpentBefore)]
            assert told == [SpentBefore(False, (Spent("token:a", 7.0, 5),)), SpentBefore(True)]
            await old.greet()
            link.tell(Uses({}, {"x": 1}))
            assert await old.hear() == Uses({}, {"x": 1})  # and nothing before it
        finally:
            await link.close()

    run(main())


def test_change_is_effective_after_every_ack(tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path / "s") as (link, told):
            one, two = await connect(tmp_path / "s"), await connect(tmp_path / "s")
            await one.greet("w0")
            await two.greet("w1")
            patch = told.add()
            publishing = asyncio.create_task(published(link, patch))
            assert await one.hear() == patch
            one.say(Ack(patch.generation))
            await asyncio.sleep(0.1)
            assert not publishing.done()
            assert await two.hear() == patch
            two.say(Ack(patch.generation))
            assert await publishing is True

    run(main())


def test_ack_times_out_and_ignores_departed_process(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with linked(tmp_path / "s") as (link, told):
            good, silent = await connect(tmp_path / "s"), await connect(tmp_path / "s")
            await good.greet("w0")
            await silent.greet("w1")
            patch = told.add()
            good.say(Ack(patch.generation))
            before = time.monotonic()
            assert await published(link, patch) is False
            assert time.monotonic() - before > 0.9
            waiting = asyncio.create_task(link.effective(patch.generation))
            await asyncio.sleep(0.05)
            silent.close()
            assert await waiting is True

    run(main())


def test_with_nobody_connected_nothing_is_effective(tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path / "s") as (link, told):
            assert await published(link, told.add()) is False

    run(main())


def test_questions_are_answered_and_in_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path / "s"):
            data = await connect(tmp_path / "s")
            await data.greet()
            before = time.monotonic()
            data.say(Ask(1, "slow", "g1", 0.4), Ask(2, "usage", "g1", 0.4), Ask(3, "broken", "g1", 0.4))
            answers = [await data.hear() for _ in range(3)]
            assert time.monotonic() - before < 30  # the slow one sleeps so long
            found = {answer.id: answer for answer in answers if isinstance(answer, AskReply)}
            assert json.loads(found[2].body) == {"kind": "usage", "grant": "g1"}
            for late in (1, 3):
                assert found[late].status == 503
                assert json.loads(found[late].body)["error"]["code"] == "control_unavailable"

    run(main())


def test_gauges_are_kept_and_events_counted(tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path / "s") as (link, _told):
            data = await connect(tmp_path / "s")
            await data.greet()
            data.say(Gauges(1, {"streams": 1.0}), Gauges(2, {"streams": 5.0}))
            await eventually(lambda: link.workers and link.workers[0].gauges == {"streams": 5.0})
            assert link.workers[0].gauges == {"streams": 5.0}

    run(main())


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",
        LENGTH.pack(3) + b"\xc1\xc1\xc1",
        frame(Ack(7)),  # before Hello
        LENGTH.pack(12) + b"GET / HTTP/1",
        LENGTH.pack(60_000) + b"\x91" * 60_000,  # nested deeper than anything of ours
    ],
    ids=["length", "not msgpack", "ack first", "http", "deep"],
)
def test_garbage_ends_that_connection_and_no_other(tmp_path: Path, garbage: bytes) -> None:
    async def main() -> None:
        async with linked(tmp_path / "s") as (link, told):
            good, bad = await connect(tmp_path / "s"), await connect(tmp_path / "s")
            await good.greet()
            bad.say_bytes(garbage)
            with pytest.raises((EOFError, ConnectionResetError)):
                await bad.hear()
            patch = told.add()
            good.say(Ack(patch.generation))
            assert await published(link, patch) is True

    run(main())


def test_a_peer_that_does_not_read_is_dropped_and_delays_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path / "s", Told(20_000)) as (link, told):
            good = await connect(tmp_path / "s")
            await good.greet()
            deaf = socket.socket(socket.AF_UNIX)
            deaf.connect(str(tmp_path / "s"))
            deaf.setblocking(False)
            one = sum(len(frame(part)) for part in parts(told.snapshot))
            for _ in range(2 * MAX_UNSENT // one):
                try:
                    deaf.send(frame(Hello("deaf", "b1", 0, 1)))
                except BrokenPipeError:
                    break
                await asyncio.sleep(0)
            await eventually(lambda: [worker.name for worker in link.workers] == ["w0"], 60)
            patch = told.add()
            publishing = asyncio.create_task(published(link, patch))
            assert await good.hear() == patch
            good.say(Ack(patch.generation))
            assert await publishing is True
            deaf.close()

    run(main())


def test_stale_socket_and_deep_path(tmp_path: Path) -> None:
    async def main() -> None:
        deep = tmp_path / ("d" * 100)
        deep.mkdir()
        for path in (tmp_path / "channel.sock", deep / "channel.sock"):
            path.write_bytes(b"stale")
            async with linked(path):
                pass
            async with linked(path) as (link, _told):  # what the last life left behind
                folder = path.parent
                import os

                descriptor = os.open(folder, os.O_RDONLY)
                data = await connect(Path(f"/proc/self/fd/{descriptor}/channel.sock"))
                await data.greet()
                await eventually(lambda: link.workers)
                os.close(descriptor)

    run(main())


# ------------------------------------------------------------------------------------------- the snapshot's pieces


def fastest(decode: Callable[[bytes], object], payload: bytes) -> float:
    """Processor time of decoding ``payload``, where nothing else disturbed it."""
    taken = []
    for _ in range(5):
        before = time.thread_time()
        decode(payload)
        taken.append(time.thread_time() - before)
    return min(taken)


def test_snapshot_parts_decode_evenly() -> None:
    for models in ((), tuple(f"provider/model-{n}" for n in range(50))):
        stored = {n.to_bytes(32, "big"): Grant(f"{n:08x}", f"token number {n}", models=models) for n in range(20_000)}
        snapshot = compose(1, Compiled(WORLD, {}, {}), stored)
        pieces = list(parts(snapshot))
        decoder = msgspec.msgpack.Decoder(Down)
        slowest = plainly = 0.0
        rebuilt: dict[bytes, Grant] = {}
        for piece in pieces:
            payload = frame(piece)[LENGTH.size :]
            decoded = decoder.decode(payload)
            slowest = max(slowest, fastest(decoder.decode, payload))
            plainly = max(plainly, fastest(msgspec.msgpack.decode, payload))
            assert len(payload) < 512 << 10
            assert isinstance(decoded, SnapshotPart)
            rebuilt.update(decoded.tokens)
        assert slowest < 5 * plainly
        assert rebuilt == stored
        assert [piece.seq for piece in pieces] == list(range(len(pieces)))
        assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]


def test_a_patch_makes_the_new_snapshot_out_of_the_old_one() -> None:
    grants = [{bytes([n]) * 32: Grant(f"g{n}", "x") for n in some} for some in ((1, 2), (2, 3), (), (1,))]
    worlds = [WORLD, World(providers={}, aliases={}, default_model="x", retries=1)]
    composed = [compose(0, Compiled(world, {}, {}), stored) for world in worlds for stored in grants]
    for old, new in itertools.product(composed, repeat=2):
        patch = difference(old, new)
        assert patch is not None
        tokens = {digest: grant for digest, grant in old.tokens.items() if digest not in patch.removed_tokens}
        world = patch.world or World(old.providers, old.aliases, old.default_model, old.timeouts, old.retries)
        assert compose(0, Compiled(world, {}, {}), {**tokens, **dict(patch.tokens)}) == new


def test_large_change_is_sent_as_whole_snapshot() -> None:
    many = {n.to_bytes(32, "big"): Grant(f"{n:08x}", "x") for n in range(1500)}
    empty, full = compose(1, Compiled(WORLD, {}, {}), {}), compose(2, Compiled(WORLD, {}, {}), many)
    assert difference(empty, full) is None
    assert difference(full, empty) is None


def test_a_token_of_the_file_wins_over_a_stored_one() -> None:
    declared = Grant("ci", "ci", origin="file")
    snapshot = compose(1, Compiled(WORLD, {b"d": declared}, {}), {b"d": Grant("g", "stored", origin="store")})
    assert snapshot.tokens == {b"d": declared}


def test_secrets_are_not_printed() -> None:
    assert "sk-canary" not in repr(Told().compiled)


def test_worker_keeps_old_snapshot_until_discovery(tmp_path: Path) -> None:
    async def main() -> None:
        told = Told()
        told.settled, told.inherited = False, 6
        async with linked(tmp_path / "s", told) as (link, _told):
            kept, fresh = await connect(tmp_path / "s"), await connect(tmp_path / "s")
            kept.say(Hello("w0", "b0", 6, 4711))
            await fresh.greet("w1")
            await eventually(lambda: len(link.workers) == 2, 60)
            link.tell(Secrets({}))
            assert await fresh.hear() == Secrets({})
            link.release()
            assert await kept.hear() == Secrets(told.secrets)
            assert isinstance(await kept.hear(), SnapshotPart)

    run(main())
