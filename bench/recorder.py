"""How many receipts a second the recorder takes from the journal into the store, ledger included.

Writes a journal of finished calls first, as a busy gateway would (tokens, models, sessions and tags as many as asked
for), then reads it into an empty store, as fast as that goes.  With ``--held`` every call's opening is read before its
end, so that each is held, released and settled in batches of their own.

    python bench/recorder.py [--calls 50000] [--database URL] [--held] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import resource
import tempfile
import time
from pathlib import Path

from headgate.control.ingest.recorder import Recorder
from headgate.control.process import new_event_loop
from headgate.control.store.database import open_store
from headgate.model import AttemptRecord, Closed, Opened
from headgate.wire.records import encode

GOAL = 5_000
NANO = 1_000_000_000
TOKENS, MODELS = 500, 40


def opened(number: int, at: int) -> Opened:
    model = number % MODELS
    return Opened(
        f"{at // 1_000_000:011x}{number:013x}", at, f"token-{number % TOKENS}", f"alias-{model % 7}", True, 900, "",
        2_500 * 1_000_000, 10_000 * 1_000_000, f"provider-{model % 9}", f"model-{model}",
    )  # fmt: skip


def closed(start: Opened, number: int) -> Closed:
    attempts = [AttemptRecord(start.provider, start.model, f"{start.provider}/0", 200, "", 200, 1_200_000)]
    if number % 20 == 0:
        attempts.insert(0, AttemptRecord("provider-x", "model-x", "provider-x/0", 503, "upstream_error", 100, 190))
    return Closed(
        start.id, start.at + NANO, "delivered", 200, "", start.provider, start.model, 912, 200 + number % 100, 128, 0,
        "provider", 4_000_000 + number, 1_000_000, 10, 0, 300_000, 350_000, 20_000, tuple(attempts), 0, "bench",
    )  # fmt: skip


class Journal:
    """One writer's segment: locked and preallocated, as the data process makes it."""

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(folder / "w0-bench-000000", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        os.ftruncate(self._fd, size)
        self._offset = 0

    def write(self, data: bytes) -> None:
        self._offset += os.pwrite(self._fd, data, self._offset)


async def measure(folder: Path, database: str, calls: int, held: bool) -> dict[str, float]:
    engine = await open_store(database)
    journal = Journal(folder / "journal", calls * 1200 + (1 << 20))
    now = time.time_ns() - calls * 1_000_000
    starts = [opened(number, now + number * 200_000) for number in range(calls)]
    ends = [closed(start, number) for number, start in enumerate(starts)]
    recorder = Recorder(engine, folder / "journal", 60.0)
    await recorder.start()
    if held:
        pieces = [b"".join(map(encode, starts)), b"".join(map(encode, ends))]
    else:
        pieces = [b"".join(encode(start) + encode(end) for start, end in zip(starts, ends, strict=True))]
    began, used = time.perf_counter(), _cpu()
    for piece in pieces:
        journal.write(piece)
        await recorder.catch_up()
    wall, cpu = time.perf_counter() - began, _cpu() - used
    await recorder.stop()
    await engine.dispose()
    return {
        "receipts": calls,
        "receipts_per_s": round(calls / wall),
        "receipts_per_cpu_s": round(calls / cpu),
        "wall_us": round(wall / calls * 1e6, 1),
        "cpu_us": round(cpu / calls * 1e6, 1),
    }


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--calls", type=int, default=50_000)
    parser.add_argument("--database", default="")
    parser.add_argument("--held", action="store_true", help="holds are posted and released")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = options.database or f"sqlite:///{folder}/headgate.db"
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            found = runner.run(measure(folder, database, options.calls, options.held))
    if options.json:
        print(json.dumps(found))
    else:
        print("  ".join(f"{name} {value:,}" for name, value in found.items()))
    return 0 if found["receipts_per_s"] >= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
