"""kill −9 at random instants under load: whichever process it hits, no receipt is lost and none is doubled.

Six kills in the suite; ``make chaos`` makes it a hundred (CHAOS_KILLS, CHAOS_SEED).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter

from headgate.testing.provider import lorem
from tests.e2e.gateway import ROLES, Gateway, Make, Report, Streamed, stream

KILLS = int(os.environ.get("CHAOS_KILLS", "6"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.randrange(1 << 32)
MOST_S = 60 + 8 * KILLS  # a hundred take five to ten minutes
CLIENTS = 12
TOKENS = (10, 40, 120)
# The supervisor is killed with all that it started, or alone: then its planes end by themselves
VICTIMS = ("data", "data", "data", "control", "control", "builtin", "supervisor", "everything")


def kill(one: Gateway, victim: str) -> None:
    pids = one.pids() if one.process.poll() is None else {}
    if victim in ROLES:
        if victim in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[victim], signal.SIGKILL)
        return
    one.process.kill()
    one.process.wait()
    if victim == "everything":
        for pid in pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    one.spawn()


def serves(one: Gateway) -> bool:
    try:
        return one.process.poll() is None and bool(one.get("/health")[1]["control"] == "connected")
    except OSError:  # its supervisor was killed a moment ago
        return False


async def client(one: Gateway, chance: random.Random, seen: list[Streamed], stop: asyncio.Event) -> None:
    while not stop.is_set():
        tokens = chance.choice(TOKENS)
        answer = await stream(one.port, f"builtin/lorem?rate=200&ttft=0.01&tokens={tokens}")
        if answer.done and answer.text != lorem.text(tokens):
            answer.error = f"done with {len(answer.text)} of {len(lorem.text(tokens))} characters"
        seen.append(answer)
        if answer.error or answer.status != 200:
            await asyncio.sleep(0.05)


async def chaos(one: Gateway, chance: random.Random) -> tuple[list[Streamed], Counter[str]]:
    seen: list[Streamed] = []
    done: Counter[str] = Counter()
    stop = asyncio.Event()
    clients = [asyncio.create_task(client(one, random.Random(chance.random()), seen, stop)) for _ in range(CLIENTS)]
    end = time.monotonic() + MOST_S
    while done.total() < KILLS and time.monotonic() < end:
        if chance.random() < 0.7:  # mostly into a gateway that serves, sometimes into one that starts
            with contextlib.suppress(AssertionError):
                await asyncio.to_thread(one.until, lambda: serves(one), 20)
        await asyncio.sleep(chance.uniform(0.05, 2.5))
        victim = chance.choice(VICTIMS)
        await asyncio.to_thread(kill, one, victim)
        done[victim] += 1
    stop.set()
    await asyncio.gather(*clients)
    return seen, done


def test_nothing_is_lost_whatever_is_killed(gateway: Make, report: Report) -> None:
    one = gateway("detect: {local_engines: false, environment: false}\n").start()
    print(f"CHAOS_SEED={SEED}")
    seen, done = asyncio.run(chaos(one, random.Random(SEED)))
    one.until(lambda: serves(one))
    one.until(one._recorded)
    rows = one.rows()

    assert done.total() == KILLS, f"only {done} within {MOST_S} s"
    wrong = [answer.error for answer in seen if answer.done and answer.error]
    assert not wrong
    whole = [answer for answer in seen if answer.done]
    assert whole and len({answer.id for answer in whole}) == len(whole)
    missing = [answer.id for answer in seen if answer.id and answer.id not in rows]
    assert not missing, f"{len(missing)} calls that clients have seen are in no row"
    assert {rows[answer.id]["outcome"] for answer in whole} == {"delivered"}
    assert None not in {row["outcome"] for row in rows.values()}
    usage = one.get("/v1/usage")[1]
    assert usage["requests"] == len(rows), "the days' sums count each call once"
    outcomes = Counter(row["outcome"] for row in rows.values())
    report(f"{KILLS} kills ({dict(done)}): {len(whole)} streams whole, {dict(outcomes)}, none lost or doubled")
