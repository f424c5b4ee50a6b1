"""The store of the response cache, its recordings and what is played of them, without a network."""

from __future__ import annotations

import asyncio
import random
from array import array
from collections.abc import Callable
from typing import Any

import pytest

from headgate.errors import UPSTREAM_TIMEOUT, GatewayError
from headgate.model import Price, Provider, Target, Timeouts
from headgate.policy.caching import Caching
from headgate.serving.replay import recording
from headgate.serving.replay.answers import SHARE, WEIGHT, AnswerCache, CacheUse, Recorded, StoredAnswer
from headgate.serving.replay.recording import Playback, Recording

TARGET = Target(Provider("up", "http://up/v1", models={}), "m", "m-1", Price(1, 1), Timeouts())
MB = 1 << 20


class Clock:
    """A wheel whose time is set."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.entries: dict[Any, float] = {}

    def set(self, entry: Any, due: float) -> None:
        entry.due = due
        self.entries[entry] = due

    def drop(self, entry: Any) -> None:
        self.entries.pop(entry, None)

    def pass_to(self, now: float) -> None:
        self.now = now
        for entry in [entry for entry, due in self.entries.items() if due <= now]:
            self.drop(entry)
            entry.expire(now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def cache_of(clock: Clock, most: int = MB) -> AnswerCache:
    return AnswerCache(clock, most)  # type: ignore[arg-type]


def use_of(cache: AnswerCache, key: bytes = b"k", requested: str = "m") -> CacheUse:
    return CacheUse(cache, "miss", Caching(60, False), key, requested)


def put(cache: AnswerCache, key: bytes, size: int = 10, ttl_s: float = 60, requested: str = "m") -> StoredAnswer:
    recorded = Recorded(b"x" * size, size, array("I"))
    answer = StoredAnswer(use_of(cache, key, requested), TARGET, recorded)
    cache.put(answer, ttl_s)
    return answer


def test_an_answer_is_there_until_its_time_is_over(clock: Clock) -> None:
    cache = cache_of(clock)
    stored = put(cache, b"k", ttl_s=60)
    assert cache.find(b"k", 3600) is stored and cache.find(b"other", 3600) is None
    clock.now += 59.9
    assert cache.find(b"k", 3600) is stored
    clock.now += 0.1
    assert cache.find(b"k", 3600) is None  # the wheel comes a little later
    clock.pass_to(clock.now)
    assert cache.memory.used == 0 and not clock.entries


def test_no_caller_gets_an_answer_that_is_older_than_it_wants(clock: Clock) -> None:
    cache = cache_of(clock)
    put(cache, b"k", ttl_s=86_400)
    clock.now += 120
    assert cache.find(b"k", 60) is None
    assert cache.find(b"k", 300) is not None


def test_a_newer_answer_takes_the_place_of_an_older_one(clock: Clock) -> None:
    cache = cache_of(clock)
    first, second = put(cache, b"k", 100), put(cache, b"k", 200)
    cache.forget(first)
    assert cache.find(b"k", 60) is second and cache.memory.used == second.weight == WEIGHT + 200


def test_the_one_that_was_not_used_for_longest_makes_room(clock: Clock) -> None:
    cache = cache_of(clock, 20 * (WEIGHT + 100))
    for number in range(20):
        put(cache, b"%d" % number, 100)
    assert cache.find(b"0", 60) is not None
    for number in range(20, 25):
        put(cache, b"%d" % number, 100)
    assert [number for number in range(25) if cache.find(b"%d" % number, 60) is None] == [1, 2, 3, 4, 5]
    assert cache.gauges()["cache_evicted"] == 5 and cache.memory.used <= cache.memory.most


def test_memory_never_passes_its_bound(clock: Clock) -> None:
    chance = random.Random(3)
    cache = cache_of(clock)
    for _ in range(2000):
        put(cache, b"%d" % chance.randrange(300), chance.randrange(2 * MB // SHARE), chance.randrange(60, 600))
        clock.pass_to(clock.now + chance.random())
        assert cache.memory.used <= MB
    clock.pass_to(clock.now + 1000)
    assert cache.memory.used == 0 and cache.gauges()["cache_entries"] == 0


def test_an_answer_above_its_share_is_not_stored(clock: Clock) -> None:
    cache = cache_of(clock)
    put(cache, b"k")
    put(cache, b"k", MB // SHARE)
    assert cache.find(b"k", 60) is not None and cache.gauges()["cache_stored"] == 1


def test_clearing_by_name_and_in_all(clock: Clock) -> None:
    cache = cache_of(clock)
    for number, name in enumerate(("a", "a", "b")):
        put(cache, b"%d" % number, requested=name)
    assert (cache.clear("none"), cache.clear("a"), cache.clear()) == (0, 2, 1)
    assert cache.memory.used == 0 and not clock.entries


def test_a_stored_answer_holds_no_configuration(clock: Clock) -> None:
    stored = put(cache_of(clock), b"k")
    target = stored.attempt.target
    assert (target.provider.name, target.upstream_model, target.price.input) == ("up", "m-1", 0)
    assert target.provider.models is None and target.provider is not TARGET.provider


# ------------------------------------------------------------------------------------- recordings


class Source:
    """Stands where an upstream would."""

    status = 200
    asking = None
    patience: Any = None

    def __init__(self, body: bytes = b"", streamed: bool = True) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body, self.streamed = body, streamed
        self.sink: Any = None
        self.paused = False

    def attach(self, sink: Any) -> None:
        self.sink = sink

    def detach(self) -> None:
        self.sink = None

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class Taker:
    """A sink.  ``most``: bytes after which it pauses."""

    def __init__(self, most: int = 1 << 30) -> None:
        self.got: list[bytes] = []
        self.most = most
        self.playback: Playback | None = None
        self.over: asyncio.Future[GatewayError | None] = asyncio.get_running_loop().create_future()

    def feed(self, data: bytes) -> None:
        self.got.append(data)
        if self.playback is not None and sum(map(len, self.got)) >= self.most:
            self.playback.pause()

    def ended(self) -> None:
        self.over.set_result(None)

    def failed(self, error: GatewayError) -> None:
        self.over.set_result(error)


def recorded(cache: AnswerCache, *pieces: bytes) -> Recorded | None:
    async def main() -> Recorded | None:
        source = Source()
        tape = Recording(source, cache)
        taker = Taker()
        tape.attach(taker)
        for piece in pieces:
            source.sink.feed(piece)
        source.sink.ended()
        assert b"".join(taker.got) == b"".join(pieces) and taker.over.result() is None
        tape.pause()
        assert source.paused
        tape.detach()
        assert source.sink is None
        return tape.take()

    return asyncio.run(main())


def played(
    clock: Clock, found: Recorded, act: Callable[[Playback, Taker], Any] | None = None, **more: Any
) -> list[bytes]:
    async def main() -> list[bytes]:
        answer = StoredAnswer(use_of(cache_of(clock)), TARGET, found)
        playback = Playback(answer, clock, as_stream=True, deadline=2000.0, **{"recorded": False, **more})  # type: ignore[arg-type]
        taker = Taker()
        taker.playback = playback
        if act is not None:
            await act(playback, taker)
        else:
            playback.attach(taker)
            assert await taker.over is None
        playback.detach()
        assert not clock.entries
        return taker.got

    return asyncio.run(main())


@pytest.mark.parametrize("size", [1, 100, 64 << 10, 200_000, 1 << 20])
def test_what_is_played_is_what_was_recorded(clock: Clock, size: int) -> None:
    chance = random.Random(size)
    data = chance.randbytes(size)
    cuts = sorted(chance.sample(range(1, size), min(50, size - 1)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
    cache = cache_of(clock, 64 * MB)
    found = recorded(cache, *pieces)
    assert found is not None and found.size == size and cache.recording.used == 0
    for pace in (True, False):
        got = played(clock, found, recorded=pace)
        assert b"".join(got) == data and max(map(len, got)) <= recording.PIECE


def test_a_stream_takes_a_fraction_of_its_bytes(clock: Clock) -> None:
    event = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"delta":{"content":"w%d"}}]}\n\n'
    found = recorded(cache_of(clock), *(event % number for number in range(2000)))
    assert found is not None and len(found.deflated) < found.size / 8


def test_a_recording_that_is_too_large_is_given_up(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "LARGEST_STREAM", 1000)
    cache = cache_of(clock)
    assert recorded(cache, b"x" * 600, b"x" * 600) is None and cache.recording.used == 0


def test_too_many_recordings_are_given_up(clock: Clock) -> None:
    cache = cache_of(clock)
    cache.recording.used = cache.recording.most - 10
    assert recorded(cache, b"x" * 11) is None and cache.recording.used == cache.recording.most - 10


def test_the_memory_of_compression_is_counted(clock: Clock) -> None:
    cache = cache_of(clock)
    tape = Recording(Source(b"", streamed=True), cache)
    tape.feed(b"x" * 100)
    assert cache.recording.used == 100, "a short answer needs none"
    tape.feed(b"x" * recording.BLOCK)
    assert cache.recording.used > recording.BLOCK
    tape.give_up()
    assert cache.recording.used == 0


def test_a_whole_answer_is_recorded_as_it_is(clock: Clock) -> None:
    tape = Recording(Source(b"{}" * 50, streamed=False), cache_of(clock))
    found = tape.take()
    assert found is not None and (found.size, list(found.pace)) == (100, [])
    events = Recording(Source(b"data: {}\n\n", streamed=False), cache_of(clock)).take()
    assert events is not None and list(events.pace) == [0, events.size]
    assert Recording(Source(b"x" * (recording.LARGEST_WHOLE + 1), streamed=False), cache_of(clock)).take() is None

    async def main() -> tuple[bool, bytes]:
        answer = StoredAnswer(use_of(cache_of(clock)), TARGET, found)
        playback = Playback(answer, clock, as_stream=True, recorded=True, deadline=2000.0)  # type: ignore[arg-type]
        return playback.streamed, playback.body

    assert asyncio.run(main()) == (False, b"{}" * 50)


def test_a_slow_reader_is_waited_for_and_not_for_ever(clock: Clock) -> None:
    data = random.Random(1).randbytes(300_000)
    found = recorded(cache_of(clock, 64 * MB), data)
    assert found is not None

    async def act(playback: Playback, taker: Taker) -> None:
        taker.most = 100_000
        playback.attach(taker)
        for _ in range(20):
            await asyncio.sleep(0)
        held = sum(map(len, taker.got))
        assert 100_000 <= held <= 100_000 + recording.PIECE
        taker.most = held + 1
        playback.resume()
        for _ in range(20):
            await asyncio.sleep(0)
        assert held < sum(map(len, taker.got)) < len(data)
        clock.pass_to(2000.0)
        error = await taker.over
        assert error is not None and error.kind is UPSTREAM_TIMEOUT

    played(clock, found, act)


def test_the_pace_is_that_of_the_recording(clock: Clock) -> None:
    found = recorded(cache_of(clock), b"one", b"two")
    assert found is not None and list(found.pace) == [0, 6]  # they came together
    apart = found._replace(pace=array("I", [0, 3, 40, 3]))
    waits: list[float] = []

    async def act(playback: Playback, taker: Taker) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        playback.attach(taker)
        await taker.over
        waits.append(loop.time() - begun)

    assert played(clock, apart, act, recorded=True) == [b"one", b"two"] and waits[0] >= 0.04
    assert played(clock, apart, act, recorded=False) == [b"onetwo"]
