"""What lists and usage cost where the store has ten million rows, while the recorder goes on writing.

Generates rows (200 tokens, 40 models, 12 providers, 90 days, 2 % that were not delivered, rare values, a retired model,
two frequent values that never meet), then asks for the first page of every filter and every pair of filters, deep
pages, windows of time and the usage reports, as the control process does.  A store that is there already is used as it
is.

    python bench/ten_million.py [--rows 10000000] [--state-dir DIR] [--database URL] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.ingest import rollup
from headgate.control.ingest.recorder import Recorder
from headgate.control.ingest.statements import CLOSE_COLUMNS, Statements
from headgate.control.process import new_event_loop
from headgate.control.reports import usage
from headgate.control.reports.requests import RequestFilters, page
from headgate.control.store.database import open_store, requests
from headgate.model import Closed, Opened
from headgate.wire.records import encode

DAYS = 90
BATCH = 20_000
GOAL_MS = 300.0
GROUPS = ("model", "provider", "requested", "token", "outcome", "day")  # of the sums that are kept per day
LIVE_PER_S = 400  # calls that are recorded meanwhile
NANO = 1_000_000_000
ATTEMPTS = '[["%s","%s","%s/0",200,"",180,2350000]]'


# ------------------------------------------------------------------------------------- the rows


def token(number: int) -> str:
    return f"{number * 2_654_435_761 % (1 << 32):08x}"


TOKENS = [token(number) for number in range(200)]
PROVIDERS = [f"provider-{number}" for number in range(12)]
MODELS = [(PROVIDERS[number * 7 % 12], f"maker-{number % 9}/model-{number}-instruct") for number in range(40)]
ALIASES = [f"headgate/{job}" for job in ("chat", "fast", "coding", "extraction", "research", "summarization")]
CODES = [
    (502, "upstream_error"),
    (429, "upstream_rate_limited"),
    (504, "first_token_timeout"),
    (400, "upstream_refused"),
]


def zipf(count: int) -> list[float]:
    return list(itertools.accumulate(1 / (rank + 1) for rank in range(count)))


class Rows:
    """Rows of requests, oldest first, the same for the same number of them."""

    def __init__(self, count: int, now: int) -> None:
        self._count = count
        self._step = DAYS * 86_400 * NANO // count
        self._start = now - count * self._step
        self._chance = random.Random(20261121)
        rare = sorted(self._chance.sample(range(count), min(40, count)))
        self._rare = dict(zip(rare, itertools.cycle(("token", "model", "provider", "name")), strict=False))

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return map(self._row, range(self._count))

    def _row(self, number: int) -> tuple[Any, ...]:
        chance = self._chance
        at = self._start + number * self._step + chance.randrange(self._step)
        grant = chance.choices(TOKENS, cum_weights=TOKEN_WEIGHTS)[0]
        provider, model = chance.choices(MODELS, cum_weights=MODEL_WEIGHTS)[0]
        if grant == TOKENS[0] and model == MODELS[1][1]:
            provider, model = MODELS[0]  # the most frequent token never uses the second most frequent model
        if model == MODELS[5][1] and number > self._count // 4:
            provider, model = MODELS[6]  # retired after the first quarter
        requested = chance.choice(ALIASES) if chance.random() < 0.7 else f"{provider}/{model}"
        kind = self._rare.get(number)
        if kind == "token":
            grant = "0000rare"
        elif kind == "model":
            model = "a-rare-model"
        elif kind == "provider":
            provider = "a-rare-provider"
        elif kind == "name":
            requested = "a-rare/name"
        outcome, status, code = "delivered", 200, ""
        completion = int(chance.expovariate(1 / 350)) + 1
        luck = chance.random()
        if luck < 0.012:
            outcome, completion = "failed", 0
            status, code = CODES[min(3, int(chance.expovariate(1.2)))]
        elif luck < 0.02:
            outcome, status, code = "cancelled", 499, "client_gone"
        elif luck < 0.0201:
            outcome, status, code = "lost", 0, "lost"
        prompt = int(chance.expovariate(1 / 1200)) + 5
        duration = int(completion * 11_000 + chance.expovariate(1 / 400_000))
        cost = None if provider == PROVIDERS[3] else prompt * 150 + completion * 600
        label = f"order-{number}" if number % 20 == 0 else None
        # fmt: off
        return (
            f"{at // 1_000_000:011x}5a17e00{number & 0xFFFFFF:06x}", "w0-0123456789ab", at, grant, requested,
            chance.random() < 0.7, label, None, None, provider, model, prompt, completion, "provider",
            at + duration * 1000, outcome, status, code, prompt // 3, 0, 0, cost, duration, 20, 0, 180_000,
            300_000, completion * 190, ATTEMPTS % (provider, model, provider), "genai-prices 0.2.3",
            None, None, None, "", None, None, None, 0, None, None, None, None, None, None,
        )
        # fmt: on


TOKEN_WEIGHTS, MODEL_WEIGHTS = zipf(len(TOKENS)), zipf(len(MODELS))


async def fill(engine: AsyncEngine, count: int) -> None:
    """``count`` rows in the order of their time, as the recorder would have written them, then what is derived."""
    statement = Statements.compile(engine).close
    assert len(next(iter(Rows(1, time.time_ns())))) == len(CLOSE_COLUMNS)
    rows = iter(Rows(count, time.time_ns()))
    began, done = time.monotonic(), 0
    while batch := list(itertools.islice(rows, BATCH)):
        async with engine.begin() as connection:
            await connection.exec_driver_sql(statement, batch)
        done += len(batch)
        progress(f"{done:,} of {count:,} rows", done / count, began)
    progress("adding up days and zones", 1, began)
    async with engine.begin() as connection:
        await connection.run_sync(rollup.recount)
    if engine.dialect.name == "postgresql":
        async with engine.connect() as connection:
            await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(text("VACUUM ANALYZE"))


def progress(what: str, part: float, began: float) -> None:
    spent = time.monotonic() - began
    left = spent / part - spent if part else 0
    if sys.stderr.isatty() or part >= 1:
        end = "\r" if part < 1 else "\n"
        print(f"\r{what:<40} {part:6.1%}  {spent:5.0f} s, {left:5.0f} s to go ", end=end, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------- the questions

Question = Callable[[AsyncEngine], Awaitable[object]]


@dataclass
class Timings:
    """ms of every question of one kind, with its name."""

    found: list[tuple[float, str]] = field(default_factory=list)

    def at(self, part: float) -> float:
        ordered = sorted(ms for ms, _name in self.found)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def singles(now: int) -> list[dict[str, Any]]:
    """One filter each: frequent, middling, rare and absent values."""
    day = 86_400 * NANO
    values: dict[str, tuple[Any, ...]] = {
        "token": (TOKENS[0], TOKENS[60], "0000rare", "nobody"),
        "model": (MODELS[0][1], MODELS[1][1], MODELS[5][1], MODELS[30][1], "a-rare-model", "no-model"),
        "requested": (ALIASES[0], "/".join(MODELS[20]), "a-rare/name", "no/name"),
        "provider": (PROVIDERS[0], PROVIDERS[11], "a-rare-provider", "no-provider"),
        "outcome": ("delivered", "failed", "cancelled", "lost", "running", "no-outcome"),
        "code": ("upstream_error", "upstream_refused", "lost", "no-code"),
        "stream": (True, False),
        "label": ("order-20", "order-1"),
        "min_cost": (500_000, 4_000_000, 10**12),
        "min_duration_us": (10_000_000, 40_000_000, 10**12),
        "since": (now - day, now - 30 * day),
        "until": (now - 45 * day, now - 89 * day),
    }
    return [{name: value} for name, some in values.items() for value in some]


def questions(now: int) -> Iterator[tuple[str, str, Question]]:
    """Kind, name, and what to ask."""

    def ask(limit: int, cursor: str | None = None, **filters: Any) -> Question:
        return lambda engine: page(engine, RequestFilters(**filters), limit, cursor)

    yield "list", "newest 50", ask(50)
    yield "list", "newest 500", ask(500)
    alone = singles(now)
    for one in alone:
        yield "one filter", str(one), ask(50, **one)
        yield "one filter, 500 rows", str(one), ask(500, **one)
    for one, other in itertools.combinations(alone, 2):
        if one.keys() != other.keys():
            yield "two filters", str(one | other), ask(50, **one, **other)


async def deep(engine: AsyncEngine, now: int) -> list[tuple[str, str, Question]]:
    """Pages far from the newest: cursors as a reader gets them who goes on for long."""
    found: list[tuple[str, str, Question]] = []
    for part in (0.1, 0.5, 0.9):
        until = now - int(DAYS * part * 86_400 * NANO)
        for one in ({}, *singles(now)):
            if "until" in one or "since" in one:
                continue
            cursor = (await page(engine, RequestFilters(until=until), 1)).next
            found.append(
                ("deep cursor", f"{part:.0%} {one}", lambda e, c=cursor, f=one: page(e, RequestFilters(**f), 50, c))
            )
    return found


def reports(now: int) -> Iterator[tuple[str, str, Question]]:
    day = 86_400 * NANO
    for group in GROUPS:
        for days in (1, 30, None):
            for more in ({}, {"token": TOKENS[0]}, {"provider": PROVIDERS[0]}):
                window = {} if days is None else {"since": now - days * day}
                filters = usage.UsageFilters(**window, **more)
                yield "usage report", f"{group} {days} {more}", lambda e, g=group, f=filters: usage.report(e, g, f)
    yield "uses of 30 days", "", usage.uses_30d
    for grant in (TOKENS[0], TOKENS[100], "nobody"):
        yield "a client's usage", grant, lambda e, g=grant: usage.of_grant(e, g)


# ------------------------------------------------------------------------------------- measuring


class Live:
    """Calls that go on being made: a journal as the data process writes it, and the recorder that reads it."""

    def __init__(self, engine: AsyncEngine, state: Path) -> None:
        self._recorder = Recorder(engine, state / "journal")
        self._path = state / "journal" / f"w0-bench{os.getpid()}-000000"
        self._number = 0
        self.written = 0

    async def __aenter__(self) -> Live:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        await self._recorder.start()
        self._task = asyncio.create_task(self._write(), name="live calls")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await self._recorder.catch_up()
        await self._recorder.stop()
        os.close(self._fd)
        self._path.unlink(missing_ok=True)

    async def _write(self) -> None:
        while True:
            now = time.time_ns()
            os.write(self._fd, b"".join(self._call(now) for _ in range(LIVE_PER_S // 20)))
            await asyncio.sleep(0.05)

    def _call(self, now: int) -> bytes:
        self.written = self._number = self._number + 1
        ident = f"{now // 1_000_000:011x}11fe000{self._number & 0xFFFFFF:06x}"
        provider, model = MODELS[self._number % 40]
        opened = Opened(ident, now, TOKENS[self._number % 200], ALIASES[0], True, 100, "", -1, -1, provider, model)
        return encode(opened) + encode(
            Closed(ident, now + NANO, "delivered", 200, "", provider, model, 100, 50, 0, 0, "provider", 99, 10**6)
        )


async def measure(
    engine: AsyncEngine, asked: list[tuple[str, str, Question]], before: Callable[[], Awaitable[None]] | None
) -> dict[str, Timings]:
    found: dict[str, Timings] = {}
    began = time.monotonic()
    for number, (kind, name, question) in enumerate(asked, 1):
        if before is not None:
            await before()
        start = time.perf_counter()
        await question(engine)
        found.setdefault(kind, Timings()).found.append(((time.perf_counter() - start) * 1000, name))
        progress(f"{number} of {len(asked)} questions", number / len(asked), began)
    return found


def size(path: str) -> int:
    return os.path.getsize(path)


def forget(path: str) -> None:
    """Has the kernel drop what it holds of a file."""
    for name in (path, f"{path}-wal"):
        if os.path.exists(name):
            fd = os.open(name, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def table(title: str, found: dict[str, Timings]) -> None:
    print(f"\n{title}, ms\n{'':<24}{'n':>6}{'p50':>9}{'p95':>9}{'max':>9}  the slowest")
    for kind, timings in found.items():
        slowest = max(timings.found)
        print(
            f"{kind:<24}{len(timings.found):>6}{timings.at(0.5):>9.1f}{timings.at(0.95):>9.1f}{slowest[0]:>9.1f}"
            f"  {slowest[1][:90]}"
        )


def summary(found: dict[str, Timings]) -> dict[str, Any]:
    return {
        kind: {
            "n": len(timings.found),
            "p50_ms": round(timings.at(0.5), 2),
            "p95_ms": round(timings.at(0.95), 2),
            "max_ms": round(max(timings.found)[0], 2),
            "slowest": max(timings.found)[1],
        }
        for kind, timings in found.items()
    }


async def run(options: argparse.Namespace, state: Path) -> dict[str, Any]:
    database = options.database or f"sqlite:///{state}/headgate.db"
    engine = await open_store(database)
    async with engine.connect() as connection:
        empty = (await connection.execute(select(requests.c.id).limit(1))).first() is None
    if empty:
        await fill(engine, options.rows)
    now = time.time_ns()
    asked = [*questions(now), *await deep(engine, now), *reports(now)]
    result: dict[str, Any] = {"rows": options.rows, "database": engine.dialect.name}
    async with Live(engine, state) as live:
        warm = await measure(engine, asked, None)
        result["recorded_meanwhile"] = live.written
    everything = {"all of them": Timings([entry for timings in warm.values() for entry in timings.found])}
    result["warm"] = summary(warm | everything)
    if not options.json:
        table(f"{options.rows:,} rows, {live.written:,} calls recorded meanwhile", warm | everything)
    if engine.dialect.name == "sqlite":
        path = str(engine.url.database)
        result["bytes_per_row"] = round(size(path) / options.rows)

        async def cool() -> None:
            await engine.dispose()
            forget(path)

        cold = await measure(engine, [one for one in asked if one[0] not in ("two filters", "deep cursor")], cool)
        result["cold"] = summary(cold)
        if not options.json:
            table("the same, nothing in memory", cold)
            print(f"\n{result['bytes_per_row']} bytes a row on the disk")
    await engine.dispose()
    result["met"] = everything["all of them"].at(0.95) <= GOAL_MS
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--state-dir", type=Path, help="where the store is kept; else a folder that goes again")
    parser.add_argument("--database", help="postgresql://… instead of SQLite")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headgate-bench-") as folder:
        state = options.state_dir or Path(folder)
        state.mkdir(parents=True, exist_ok=True)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            result = runner.run(run(options, state))
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"\np95 ≤ {GOAL_MS:.0f} ms: {'met' if result['met'] else 'missed'}")
    return 0 if result["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
