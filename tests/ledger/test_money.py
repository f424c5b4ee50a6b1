"""The ledger, its check, its corrections and what is read of it, on both databases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.catalog.money import price_id
from headgate.control.ingest.recorder import Recorder
from headgate.control.ledger.prices import PriceBook
from headgate.control.ledger.reprice import Repricing, reprice
from headgate.control.ledger.spend import spending
from headgate.control.ledger.verify import CHECKS, JOURNAL, verify
from headgate.control.reports import breakdown, reconcile, usage
from headgate.control.reports.spent_before import SpentSource
from headgate.control.reports.usage import UsageFilters
from headgate.control.store.database import open_store
from headgate.control.store.ledger_tables import ledger_entries
from headgate.model import (
    AttemptRecord,
    Budget,
    CallGroup,
    CallLimits,
    DetailRates,
    Grant,
    ModelRow,
    Price,
    PriceHours,
    Provider,
    Record,
    Snapshot,
    Tenant,
    TokenDetails,
)
from headgate.process.channel import Hello
from tests.control.conftest import database, postgres
from tests.control.journal_writer import SECOND, Writer, closed, opened, progress, run

__all__ = ["database", "postgres"]  # fixtures

DAY = 86_400 * SECOND
NOW = int(time.time()) // 86_400 * DAY + DAY // 2  # noon, UTC


@dataclass
class Store:
    """A store with a recorder, and a journal to write to."""

    engine: AsyncEngine
    recorder: Recorder
    writer: Writer
    folder: Path

    async def take(self, *records: Record) -> None:
        self.writer.write(*records)
        await self.recorder.catch_up()

    async def ask(self, sql: str) -> list[Any]:
        async with self.engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(text(sql))]

    async def tell(self, sql: str) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(text(sql))

    async def wrong(self) -> set[str]:
        return {check.name for check in await verify(self.engine, self.folder) if not check.ok}

    async def balances(self) -> dict[str, int]:
        rows = await self.ask("SELECT account, SUM(amount) FROM ledger_balances GROUP BY account")
        return {account: int(amount) for account, amount in rows if amount}


def with_store(url: str, folder: Path, check: Callable[[Store], Awaitable[None]]) -> None:
    @asynccontextmanager
    async def store() -> AsyncIterator[Store]:
        engine = await open_store(url)
        recorder = Recorder(engine, folder / "journal", 60.0)
        await recorder.start()
        try:
            yield Store(engine, recorder, Writer(folder / "journal"), folder / "journal")
        finally:
            await recorder.stop()
            await engine.dispose()

    async def main() -> None:
        async with store() as one:
            await check(one)

    run(main())


def at(number: int, days_ago: float = 0.0) -> dict[str, Any]:
    instant = NOW - int(days_ago * DAY) + number * 1_000_000
    return {"id": f"{instant // 1_000_000:011x}{number:013x}", "at": instant}


def call(number: int, days_ago: float = 0.0, start: dict[str, Any] | None = None, **end: Any) -> list[Record]:
    place = at(number, days_ago)
    ended = {**place, "at": place["at"] + SECOND}
    return [opened(number, **place, **(start or {})), closed(number, **ended, **end)]


def test_caller_pays_the_answer_and_the_operator_what_failed(database: str, tmp_path: Path) -> None:
    async def check(store: Store) -> None:
        attempts = (
            AttemptRecord("up-x", "big", "up-x/0", 0, "upstream_cut", 1, 9, "first", 90, 2, 70),
            AttemptRecord("up-a", "big", "up-a/0", 200, "", 10, 99, "fallback", 90, 10, 110),
        )
        await store.take(*call(1, start={"tenant": "acme"}, cost=110, attempts=attempts))
        assert await store.balances() == {
            "token:g1": 110, "tenant:acme": 110, "tenants": -110,
            "provider:up-a": -110, "provider:up-x": -70, "operator": 70,
        }  # fmt: skip
        assert await store.wrong() == set()
        assert await store.ask("SELECT operator_cost FROM requests") == [(180,)]

    with_store(database, tmp_path, check)


def test_hold_is_posted_raised_released_and_settled(database: str, tmp_path: Path) -> None:
    async def check(store: Store) -> None:
        start, end = call(1, start={"hold": 500}, cost=300)
        await store.take(start)
        assert await store.balances() == {"held:g1": 500, "reserved": -500}
        heard = progress(1, 9)
        heard.id, heard.hold = start.id, 800  # type: ignore[union-attr]
        await store.take(heard)
        assert await store.balances() == {"held:g1": 800, "reserved": -800}
        assert await store.wrong() == set()
        await store.take(end)
        assert await store.balances() == {"token:g1": 300, "provider:up-a": -300}
        transfers = await store.ask("SELECT DISTINCT transfer FROM ledger_entries ORDER BY transfer")
        assert [one.removeprefix(start.id) for (one,) in transfers] == [":hold", ":hold:800", ":settle"]  # type: ignore[union-attr]

    with_store(database, tmp_path, check)


def test_lost_call_is_settled_with_its_estimate(database: str, tmp_path: Path) -> None:
    async def check(store: Store) -> None:
        await store.take(call(1, start={"hold": 500})[0])
        store.writer.die()
        while not await store.ask("SELECT 1 FROM requests WHERE outcome = 'lost'"):
            await store.recorder.catch_up()
            await asyncio.sleep(0.05)
        assert await store.balances() == {"token:g1": 100_000, "provider:up-a": -100_000}
        assert await store.wrong() == set()
        assert await reprice(store.engine, {}, None, None, apply=True) == Repricing()  # the call may yet be settled

    with_store(database, tmp_path, check)


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        ("UPDATE ledger_entries SET amount = amount + 1 WHERE account = 'token:g1'", "entries add up to 0"),
        ("UPDATE ledger_balances SET amount = amount - 1", "balances are the sums of entries"),
        ("DELETE FROM ledger_entries WHERE account LIKE 'held:%' OR account = 'reserved'",
         "holds are those of running calls"),
        ("UPDATE requests SET cost = cost + 1 WHERE outcome IS NOT NULL", "receipts are posted"),
        ("UPDATE requests SET operator_cost = 5 WHERE outcome IS NOT NULL", "providers' charges are posted"),
        ("DELETE FROM usage_days", "usage is the sum of receipts"),
        ("DELETE FROM requests WHERE outcome IS NOT NULL", JOURNAL),
    ],
)  # fmt: skip
def test_verify_finds_ledger_damage(tmp_path: Path, harm: str, found: str) -> None:
    async def check(store: Store) -> None:
        await store.take(*call(1), *call(2), opened(3, **at(3), hold=7))
        assert await store.wrong() == set()
        await store.tell(harm)
        assert found in await store.wrong()

    assert found in {*CHECKS, JOURNAL}
    with_store(f"sqlite:///{tmp_path}/headgate.db", tmp_path, check)


def test_usage_by_labels_and_hours(database: str, tmp_path: Path) -> None:
    async def check(store: Store) -> None:
        search = {"tenant": "acme", "session": "s-1", "user": "ann", "tags": {"team": "search", "stage": "dev"}}
        await store.take(
            *call(1, start=search, cost=100), *call(2, 2 / 24, start={**search, "session": "s-2"}, cost=10),
            *call(3, start={"tags": {"team": "ads"}}, cost=7), *call(4, 40.0, start=search, cost=1),
        )  # fmt: skip

        async def ask(group: str, since: int | None = NOW - DAY, **labels: str) -> dict[Any, tuple[int, float]]:
            found = await breakdown.report(store.engine, group, UsageFilters(since=since), breakdown.Labels(**labels))
            return {row["group"]: (row["requests"], round(row["cost_usd"] * 1e9)) for row in found["data"]}

        assert await ask("tenant") == {"acme": (2, 110), None: (1, 7)}
        assert await ask("session") == {"s-1": (1, 100), "s-2": (1, 10), None: (1, 7)}
        assert await ask("user", since=None) == {"ann": (3, 111), None: (1, 7)}
        assert await ask("tag") == {"team=search": (2, 110), "stage=dev": (2, 110), "team=ads": (1, 7)}
        hours = [time.strftime("%Y-%m-%dT%H:00Z", time.gmtime(NOW // SECOND - back * 3600)) for back in (2, 0)]
        assert await ask("hour") == {hours[0]: (1, 10), hours[1]: (2, 107)}
        assert await ask("model", tag="team=search") == {"up-a/big-0613": (2, 110)}
        assert await ask("token", tag="team") == {"g1": (3, 117)}
        assert await ask("requested", session="s-1", user="ann", tenant="acme") == {"headgate/chat": (1, 100)}

    with_store(database, tmp_path, check)


def test_failures_and_unserved_calls_are_the_same_by_any_group(database: str, tmp_path: Path) -> None:
    async def check(store: Store) -> None:
        refused = {"outcome": "refused", "status": 400, "provider": "", "model": "", "cost": 0}
        start = {"session": "s-1"}
        await store.take(
            *call(1, start=start), *call(2, start=start, outcome="budget_exceeded"),
            *call(3, start={**start, "provider": "", "model": ""}, **refused),
        )  # fmt: skip
        of_days = await usage.report(store.engine, "model", UsageFilters())
        of_calls = await breakdown.report(store.engine, "model", UsageFilters(), breakdown.Labels(session="s-1"))
        assert of_days["total"]["failed"] == of_calls["total"]["failed"] == 1
        groups = [
            {row["group"]: (row["requests"], row["failed"]) for row in one["data"]} for one in (of_days, of_calls)
        ]
        assert groups == [{"up-a/big-0613": (2, 0), None: (1, 1)}] * 2

    with_store(database, tmp_path, check)


def test_tags_of_any_name_are_found(database: str, tmp_path: Path) -> None:
    names = ('a"b', "a\\b", "a.b", "é", "$", "[0]", "team")

    async def check(store: Store) -> None:
        tags = {name: f"of {name}" for name in names}
        await store.take(*call(1, start={"tags": tags}, cost=100), *call(2, cost=7))
        groups = tuple(CallGroup(name, tags={name: tags[name]}, budget=Budget(10**9, "day")) for name in names)
        found = await spending(store.engine, Snapshot(groups=groups), NOW / SECOND + 1)
        assert {one.key: one.spent for one in found.spent} == {f"group:{name}": 100 for name in names}
        for name in names:
            for tag, calls in ((name, 1), (f"{name}=of {name}", 1), (f"{name}=another", 0), (f"{name}x", 0)):
                labels = breakdown.Labels(tag=tag)
                report = await breakdown.report(store.engine, "model", UsageFilters(), labels)
                assert report["total"]["requests"] == calls, tag

    with_store(database, tmp_path, check)


OLD = Price(10**9, 2 * 10**9, source="file")


def providers(price: Price) -> dict[str, Provider]:
    return {"up-a": Provider("up-a", "http://x", models={"big": ModelRow("big", "big-0613", price=price)})}


def test_reprice_shows_and_posts_what_a_corrected_price_changes(database: str, tmp_path: Path) -> None:
    """Once, however often it is applied, and the receipts stay as they are."""

    async def check(store: Store) -> None:
        charged = {"cost": 110_000, "price_id": price_id(OLD), "cached_tokens": 0}
        await store.take(*call(1, start={"tenant": "acme"}, **charged), *call(2, **charged))

        async def again(price: Price, **how: Any) -> tuple[int, int, int]:
            found = await reprice(store.engine, providers(price), None, None, **{"apply": True, **how})
            (change,) = found.changes.values() or [None]
            return (change.calls, change.corrected - change.charged, found.posted) if change else (0, 0, found.posted)

        dearer = Price(2 * 10**9, 4 * 10**9, source="file")
        assert await again(OLD) == (0, 0, 0)
        assert await again(dearer, apply=False) == (2, 220_000, 0)
        assert (await store.balances())["token:g1"] == 220_000
        assert await again(dearer) == (2, 220_000, 2)
        assert await again(dearer) == (0, 0, 0)
        expected = {"token:g1": 440_000, "provider:up-a": -440_000, "tenant:acme": 220_000, "tenants": -220_000}
        assert await store.balances() == expected
        assert await store.ask("SELECT DISTINCT cost FROM requests") == [(110_000,)]
        assert await store.wrong() == set()
        assert await again(OLD) == (2, -220_000, 2)  # and back: a correction of its own
        assert (await store.balances())["token:g1"] == 220_000
        assert await store.wrong() == set()
        unknown = await reprice(store.engine, {}, None, None, apply=True)
        assert (unknown.unknown, unknown.posted) == (2, 0)

    with_store(database, tmp_path, check)


def test_reprice_knows_kinds_and_the_hour(tmp_path: Path) -> None:
    async def check(store: Store) -> None:
        details = TokenDetails(audio_input=40)
        await store.take(*call(1, cost=0, cached_tokens=0, token_details=details, price_id="x"))
        price = Price(
            10**9, 10**9, source="file", hours=(PriceHours(12 * 60, 13 * 60, 50),),
            details=DetailRates(audio_input=3 * 10**9),
        )  # fmt: skip
        found = await reprice(store.engine, providers(price), None, None, apply=False)
        (change,) = found.changes.values()
        assert change.corrected == (50 * 1000 + 40 * 3000 + 10 * 1000) // 2  # it ended at noon: half

    with_store(f"sqlite:///{tmp_path}/headgate.db", tmp_path, check)


def test_price_of_a_receipt_can_be_found(database: str, tmp_path: Path) -> None:
    async def check(store: Store) -> None:
        book = PriceBook(store.engine)
        await book.keep(Snapshot(providers=providers(OLD)))
        await book.keep(Snapshot(providers=providers(replace_input(OLD))))
        await PriceBook(store.engine).keep(Snapshot(providers=providers(OLD)))  # another life of control
        found = {
            ident: msgspec.json.decode(body, type=Price)
            for ident, body in await store.ask("SELECT id, body FROM prices")
        }
        assert found == {price_id(price): price for price in (OLD, replace_input(OLD))}

    with_store(database, tmp_path, check)


def replace_input(price: Price) -> Price:
    return msgspec.structs.replace(price, input=5)


def test_spending_is_what_budgets_have_used(database: str, tmp_path: Path) -> None:
    """Of the running period, in its zone, with the holds of running calls; corrections and groups included."""
    now = NOW / SECOND
    kiritimati = "Pacific/Kiritimati"  # UTC+14: its day began at 10:00 UTC
    snapshot = Snapshot(
        tokens={
            b"1": Grant("g1", "one", budget=Budget(10**9, "day")),
            b"2": Grant("g2", "two", budget=Budget(10**9, "day", zone=kiritimati), limits=CallLimits(rpd=5)),
            b"3": Grant("g3", "three"),
        },
        tenants={"acme": Tenant("acme", budget=Budget(10**9, "total"))},
        groups=(
            CallGroup("search", tags={"team": "search"}, budget=Budget(10**9, "day")),
            CallGroup("big", model="up-a/big-0613", budget=Budget(10**9, "total")),
        ),
    )

    async def check(store: Store) -> None:
        tagged = {"tags": {"team": "search"}, "tenant": "acme"}
        await store.take(
            *call(1, start=tagged, cost=100), *call(2, 1.0, start={"tenant": "acme"}, cost=10),
            *call(3, 1 / 24, start={"grant": "g2"}, cost=7), *call(4, 3 / 24, start={"grant": "g2"}, cost=1),
            opened(5, **at(5), hold=55, **tagged), opened(6, **at(6), hold=3, grant="g3"),
        )  # fmt: skip
        found = await spending(store.engine, snapshot, now + 1)
        spent = {one.key: one.spent for one in found.spent}
        assert spent == {
            "token:g1": 100, "token:g2": 7, "tenant:acme": 110, "group:search": 100, "group:big": 118,
        }  # fmt: skip
        assert found.held == {"token:g1": 55, "tenant:acme": 55, "group:search": 55}
        assert {one.key: one.today for one in found.spent}["token:g2"] == 2
        assert {one.key: one.recent for one in found.spent}["token:g1"] == ((float(NOW // SECOND), 2, 200),)
        assert set(found.positions) == {store.writer.path.name}
        assert found.positions[store.writer.path.name] == store.writer.offset

    with_store(database, tmp_path, check)


def test_a_process_that_begins_is_told_what_those_before_it_spent(database: str, tmp_path: Path) -> None:
    """Once they have ended: without its own calls, with a parent's revoked children, and with calls that were lost."""
    now = NOW / SECOND
    snapshot = Snapshot(
        tokens={
            b"1": Grant("g1", "one", budget=Budget(10**9, "total"), limits=CallLimits(rpd=9)),
            b"2": Grant("g2", "two", budget=Budget(10**9, "total")),
        },
        groups=(CallGroup("u", user="eve", budget=Budget(10**9, "total")),),
    )

    async def check(store: Store) -> None:
        await store.tell(
            "INSERT INTO tokens (id, name, digest, scopes, models, created_at, revoked_at, parent) "
            "VALUES ('c1', 'child', '', '[]', '[]', 1, 2, 'g1')"
        )
        own = Writer(tmp_path / "journal", "w0-new")
        source = SpentSource(store.engine, store.recorder, lambda: snapshot)
        telling = asyncio.create_task(source(Hello("w0", "new", 0, 1, since=now)))
        own.write(*call(1, start={"user": "eve"}, cost=1000))
        await store.take(
            *call(2, start={"grant": "c1", "user": "eve"}, cost=20), *call(3, 1.0, cost=3),
            opened(4, **at(4), grant="g2", hold=700, prompt_tokens=5, price_input=10**9),
        )  # fmt: skip
        assert not telling.done()  # the one before it still runs a call
        store.writer.die()
        while not telling.done():
            await store.recorder.catch_up()
            await asyncio.sleep(0.02)
        (part,) = telling.result()
        assert part.last
        found = {one.key: (one.spent, one.today) for one in part.spent}
        assert found == {"token:g1": (23, 1), "token:g2": (5000, 0), "group:u": (20, 0)}
        own.die()

    with_store(database, tmp_path, check)


def test_reconciliation_has_the_capture_rate(database: str, tmp_path: Path) -> None:
    async def check(store: Store) -> None:
        await store.take(*call(1, cost=75_000_000), *call(2, 1.0, cost=25_000_000))
        today, before = (reconcile.EPOCH.fromordinal(reconcile.EPOCH.toordinal() + NOW // DAY - ago) for ago in (0, 1))
        charged = [
            reconcile.Charged(today, 60_000_000), reconcile.Charged(today, 40_000_000),
            reconcile.Charged(before, 25_000_000), reconcile.Charged(before, None, 100, 10),
        ]  # fmt: skip
        found = await reconcile.reconcile(store.engine, ["up-a"], charged)
        rates = {line["day"]: line["capture_rate"] for line in found["data"]}
        assert rates == {today.isoformat(): 0.75, before.isoformat(): 1.0}
        assert found["total"]["capture_rate"] == 0.8
        assert found["total"]["difference_usd"] == -0.025
        assert (found["data"][0]["provider_input_tokens"], found["data"][0]["input_tokens"]) == (100, 90)

    with_store(database, tmp_path, check)


def test_entries_have_unique_ids(tmp_path: Path) -> None:
    async def check(store: Store) -> None:
        records = call(1)
        await store.take(*records)
        await store.take(*records)
        await store.take(*records)
        async with store.engine.connect() as connection:
            assert len((await connection.execute(select(ledger_entries))).all()) == 2

    with_store(f"sqlite:///{tmp_path}/headgate.db", tmp_path, check)
