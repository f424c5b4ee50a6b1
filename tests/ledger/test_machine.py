"""The ledger under any sequence of records, kills of either process and files that are read again, on real stores."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
from contextlib import closing as closing_
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headgate.control.ingest.recorder import Recorder
from headgate.control.ledger.verify import verify
from headgate.control.store.database import open_store
from headgate.model import AttemptRecord, Record
from tests.control.journal_writer import Writer, closed, ident, opened, progress

CALLS = st.integers(0, 7)
BOOTS = st.sampled_from(["w0-b0", "w1-b1"])
MONEY = st.sampled_from([-1, 0, 1, 110_000, 7_000_000_000])
HELD = st.sampled_from([-1, 0, 5, 1_000_000])
PAID = "SELECT substr(transfer, 1, 24), SUM(amount) FROM ledger_entries WHERE account LIKE 'token:%' GROUP BY 1"


@cache
def empty_store() -> bytes:
    """A store at head; making one takes longer than a whole example."""
    with tempfile.TemporaryDirectory() as folder:

        async def make() -> None:
            engine = await open_store(f"sqlite:///{folder}/headgate.db")
            await engine.dispose()

        asyncio.run(make())
        return (Path(folder) / "headgate.db").read_bytes()


class Ledger(RuleBasedStateMachine):
    """``due``: what each call costs its caller by its first recorded end; ``seen``: the records in the journal."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.state = Path(tempfile.mkdtemp())
        (self.state / "headgate.db").write_bytes(empty_store())
        self.writers: dict[str, Writer] = {}
        self.segments: dict[str, int] = {}
        self.ended: dict[int, int] = {}
        self.open: dict[int, str] = {}
        self.seen: list[Record] = []
        self.clean = True  # everything written is in the store

    @initialize()
    def begin(self) -> None:
        self._start()

    def _start(self) -> None:
        async def start() -> None:
            self.engine = await open_store(f"sqlite:///{self.state}/headgate.db")
            self.recorder = Recorder(self.engine, self.state / "journal", 60.0)
            await self.recorder.start()

        self.loop.run_until_complete(start())

    def _write(self, boot: str, *records: Record) -> None:
        writer = self.writers.get(boot)
        if writer is None:
            number = self.segments[boot] = self.segments.get(boot, -1) + 1
            writer = self.writers[boot] = Writer(self.state / "journal", boot, number, 1 << 16)
        writer.write(*records)
        self.seen += records
        self.clean = False

    @rule(number=CALLS, boot=BOOTS, hold=HELD, tenant=st.sampled_from(["", "acme"]))
    def open_call(self, number: int, boot: str, hold: int, tenant: str) -> None:
        if number not in self.open and number not in self.ended:
            self.open[number] = boot
            self._write(boot, opened(number, hold=hold, tenant=tenant, grant=f"g{number % 2}"))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), hold=HELD)
    def hear_of_call(self, data: st.DataObject, hold: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.open)))
        record = progress(number, 5)
        record.hold = hold
        self._write(self.open[number], record)

    @rule(number=CALLS, boot=BOOTS, cost=MONEY, extra=MONEY, outcome=st.sampled_from(["delivered", "failed"]))
    def close_call(self, number: int, boot: str, cost: int, extra: int, outcome: str) -> None:
        """Also one that was never opened, or whose process is gone."""
        if number in self.ended:
            return
        attempts = [AttemptRecord("up-a", "big", "up-a/0", 200, "", 10, 999, "first", 90, 10, cost)]
        if extra >= 0:
            attempts.insert(0, AttemptRecord("up-x", "big", "up-x/0", 0, "cut", 1, 9, "first", 90, 2, extra))
        end: dict[str, Any] = {"cost": cost, "outcome": outcome, "attempts": tuple(attempts)}
        self._write(self.open.pop(number, boot), closed(number, **end))
        self.ended[number] = max(0, cost)

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), boot=BOOTS)
    def repeat_record(self, data: st.DataObject, boot: str) -> None:
        """In any file: it must not count twice."""
        self._write(boot, data.draw(st.sampled_from(self.seen)))
        self.seen.pop()

    @rule()
    def record(self) -> None:
        self.loop.run_until_complete(self.recorder.catch_up())
        self.clean = True

    @rule(again=st.booleans())
    def kill_control(self, again: bool) -> None:
        """At any moment; ``again``: it does not know how far it had read."""

        async def kill() -> None:
            assert self.recorder._task is not None
            self.recorder._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.recorder._task
            self.recorder._shelf.close()
            await self.engine.dispose()

        self.loop.run_until_complete(kill())
        if again:
            with closing_(sqlite3.connect(self.state / "headgate.db", isolation_level=None)) as connection:
                connection.execute("DELETE FROM journal_offsets")
        self._start()

    @precondition(lambda self: self.writers)
    @rule(data=st.data())
    def kill_data(self, data: st.DataObject) -> None:
        """Its calls are lost, unless another file has their ends."""
        boot = data.draw(st.sampled_from(sorted(self.writers)))
        self.writers.pop(boot).die()
        for number in [number for number, where in self.open.items() if where == boot]:
            del self.open[number]
        self.clean = False

    @rule(number=CALLS, cost=MONEY, hold=HELD)
    def find_lost_call(self, number: int, cost: int, hold: int) -> None:
        """Its process dies, it is settled with an estimate, and then its end is read from another file."""
        self.open_call(number, "w0-b0", hold, "acme")
        if self.open.get(number) != "w0-b0":
            return
        self.writers.pop("w0-b0").die()
        self.open = {one: boot for one, boot in self.open.items() if boot != "w0-b0"}
        self.record()
        self.close_call(number, "w1-b1", cost, -1, "delivered")

    @invariant()
    def the_ledger_holds(self) -> None:
        if not self.clean:
            return
        checks = self.loop.run_until_complete(verify(self.engine, self.state / "journal"))
        assert [(check.name, check.found) for check in checks if not check.ok] == []
        with closing_(sqlite3.connect(self.state / "headgate.db")) as connection:
            paid = dict(connection.execute(PAID))
            assert connection.execute("SELECT coalesce(SUM(amount), 0) FROM ledger_entries").fetchone() == (0,)
        for number, due in self.ended.items():
            assert paid.get(ident(number), 0) == due

    def teardown(self) -> None:
        async def stop() -> None:
            await self.recorder.stop()
            await self.engine.dispose()

        if hasattr(self, "recorder"):
            self.loop.run_until_complete(stop())
        for writer in self.writers.values():
            writer.die()
        self.loop.close()
        shutil.rmtree(self.state)


TestLedger = Ledger.TestCase
TestLedger.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
