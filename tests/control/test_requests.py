"""Lists of requests, on both databases: every filter gives what looking at each row gives, and no page is sorted."""

from __future__ import annotations

import base64
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import event, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.ingest import rollup
from headgate.control.reports.instants import instant
from headgate.control.reports.receipts import receipt
from headgate.control.reports.requests import RequestFilters, find, one, page
from headgate.control.store.database import open_store, requests
from tests import proofs
from tests.control.journal_writer import T0, run

SECOND = 10**9
HOUR = 3600 * SECOND
COUNT = 600
OUTCOMES = ("delivered",) * 6 + ("failed", "cancelled", "lost", None)


def row(number: int, **changes: Any) -> dict[str, Any]:
    """Call ``number`` of one a minute."""
    at = T0 + number * 60 * SECOND
    values: dict[str, Any] = {
        "id": f"{at // 1_000_000:011x}{number:013x}",
        "boot": "w0-b0",
        "created_at": at,
        "grant_id": "g1",
        "requested": "headgate/chat",
        "stream": True,
        "label": None,
        "tenant": None,
        "provider": "up-a",
        "model": "big",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "basis": "provider",
        "outcome": "delivered",
        "status": 200,
        "code": "",
        "cost": 1000,
        "duration_us": 10**6,
        "attempts": '[["up-a","big","up-a/0",200,"",10,999000]]',
        "price_source": "file",
    }
    return values | changes


def many() -> list[dict[str, Any]]:
    chance = random.Random(4)
    found = []
    for number in range(COUNT):
        outcome = chance.choice(OUTCOMES)
        found.append(
            row(
                number,
                grant_id=chance.choice(("g1", "g1", "g1", "g2", "g3")),
                provider=chance.choice(("up-a", "up-b")),
                model="rare" if number == 77 else chance.choice(("big", "small", "org/small", "up-a/big")),
                requested=chance.choice(("headgate/chat", "up-a/big")),
                stream=chance.random() < 0.8 and not 200 < number < 400,
                label=chance.choice((None, None, "mine", "yours")),
                tenant=("acme", "bolt", None)[number % 3],
                continued='[[412,"up-a/big","up-b/big","upstream_cut"]]' if number % 9 == 0 else None,
                outcome=outcome,
                code="upstream_error" if outcome == "failed" else "" if outcome else None,
                cost=None if outcome is None else chance.choice((None, 0, 500, 20_000 if number > 500 else 900)),
                duration_us=chance.randrange(10**6) + (10**8 if number in (5, 300) else 0),
            )
        )
    return found


async def fill(engine: AsyncEngine, rows: list[dict[str, Any]]) -> None:
    async with engine.begin() as connection:
        if rows:
            await connection.execute(insert(requests), rows)
        await connection.run_sync(rollup.recount)


@asynccontextmanager
async def store(database: str, rows: list[dict[str, Any]]) -> AsyncIterator[AsyncEngine]:
    engine = await open_store(database)
    try:
        await fill(engine, rows)
        yield engine
    finally:
        await engine.dispose()


def with_store(database: str, rows: list[dict[str, Any]], check: Callable[[AsyncEngine], Awaitable[None]]) -> None:
    async def main() -> None:
        async with store(database, rows) as engine:
            await check(engine)

    run(main())


async def everything(engine: AsyncEngine, filters: RequestFilters, limit: int) -> list[str]:
    """All pages."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        some = await page(engine, filters, limit, cursor)
        found += [entry["id"] for entry in some.rows]
        cursor = some.next
        if cursor is None:
            return found


def passes(entry: dict[str, Any], f: RequestFilters) -> bool:
    outcome = None if f.outcome == "running" else f.outcome
    return (
        (f.token is None or entry["grant_id"] == f.token)
        and (f.model is None or entry["model"] == f.model or f"{entry['provider']}/{entry['model']}" == f.model)
        and (f.requested is None or entry["requested"] == f.requested)
        and (f.provider is None or entry["provider"] == f.provider)
        and (f.outcome is None or entry["outcome"] == outcome)
        and (f.code is None or entry["code"] == f.code)
        and (f.stream is None or entry["stream"] == f.stream)
        and (f.continued is None or f.continued == (entry["continued"] is not None))
        and (f.label is None or entry["label"] == f.label)
        and (f.tenant is None or entry["tenant"] == f.tenant)
        and (f.since is None or entry["created_at"] >= f.since)
        and (f.until is None or entry["created_at"] < f.until)
        and (f.min_cost is None or (entry["cost"] is not None and entry["cost"] >= f.min_cost))
        and (f.min_duration_us is None or entry["duration_us"] >= f.min_duration_us)
    )


VALUES: dict[str, tuple[Any, ...]] = {
    "token": ("g1", "g2", "nobody"),
    "model": ("big", "org/small", "rare", "up-a/big", "up-b/org/small", "none"),
    "requested": ("headgate/chat", "up-a/big", "none"),
    "provider": ("up-a", "none"),
    "outcome": ("delivered", "failed", "lost", "running", "none"),
    "code": ("upstream_error", "none"),
    "stream": (True, False),
    "label": ("mine", "none"),
    "tenant": ("acme", "none"),
    "continued": (True, False),
    "since": (T0 + 300 * 60 * SECOND, T0 + COUNT * HOUR),
    "until": (T0 + 450 * 60 * SECOND, T0),
    "min_cost": (0, 900, 20_000, 10**9),
    "min_duration_us": (0, 900_000, 10**8, 10**10),
}


def combinations() -> Iterator[RequestFilters]:
    """Every filter alone, and many of two to four."""
    yield RequestFilters()
    for name, values in VALUES.items():
        yield from (RequestFilters(**{name: value}) for value in values)
    for provider in ("up-a", "up-b"):
        yield RequestFilters(model="up-a/big", provider=provider)
        yield RequestFilters(model="up-a/big", provider=provider, min_cost=900, stream=False)
    chance = random.Random(5)
    for _ in range(proofs.of(60, 250)):
        names = chance.sample(list(VALUES), chance.randint(2, 4))
        yield RequestFilters(**{name: chance.choice(VALUES[name]) for name in names})


def test_every_filter_gives_what_looking_at_every_row_gives(database: str) -> None:
    rows = many()

    async def check(engine: AsyncEngine) -> None:
        for number, filters in enumerate(combinations()):
            expected = [entry["id"] for entry in reversed(rows) if passes(entry, filters)]
            assert await everything(engine, filters, (7, 50, 500)[number % 3]) == expected, filters

    with_store(database, rows, check)


def test_pages_neither_repeat_nor_miss_while_rows_come_in(database: str) -> None:
    async def check(engine: AsyncEngine) -> None:
        seen: list[str] = []
        cursor = None
        for more in range(100, 110):
            some = await page(engine, RequestFilters(token="g1"), 10, cursor)
            seen += [entry["id"] for entry in some.rows]
            cursor = some.next
            await fill(engine, [row(more)])
        assert cursor is None
        assert seen == [row(number)["id"] for number in reversed(range(100))]

    with_store(database, [row(number) for number in range(100)], check)


def test_what_is_no_cursor_and_no_limit_is_refused_in_a_sentence(database: str) -> None:
    async def check(engine: AsyncEngine) -> None:
        for cursor in ("", "x", "Y2hhdGNtcGwt", "é", "' OR 1=1", "A" * 10_000):
            with pytest.raises(ValueError, match="not the `next`"):
                await page(engine, RequestFilters(), 10, cursor)
        for limit in (0, -1, 501):
            with pytest.raises(ValueError, match="between 1 and 500"):
                await page(engine, RequestFilters(), limit)

    with_store(database, [], check)


def test_a_cursor_of_an_earlier_release_goes_on(database: str) -> None:
    rows = [row(number) for number in range(3)]

    async def check(engine: AsyncEngine) -> None:
        cursor = base64.urlsafe_b64encode(f"chatcmpl-{rows[2]['id']}".encode()).decode()
        assert [found["id"] for found in (await page(engine, RequestFilters(), 10, cursor)).rows] == [
            rows[1]["id"],
            rows[0]["id"],
        ]

    with_store(database, rows, check)


def test_one_is_found_by_its_id_or_by_the_latest_of_its_label(database: str) -> None:
    theirs = f"chatcmpl-{'d' * 24}"  # a label that looks like an id of ours
    rows = [row(0, label="mine", tenant="acme"), row(1, label="mine", grant_id="g2"), row(2, label=theirs)]
    rows += [row(3, outcome=None, price_source=None), row(4, label=row(0)["id"])]

    async def check(engine: AsyncEngine) -> None:
        found = await one(engine, rows[0]["id"])
        assert found is not None
        assert (found["id"], found["token"], found["price_snapshot"]) == (rows[0]["id"], "g1", "file")
        assert found["attempts"][0]["account"] == "up-a/0"
        assert await one(engine, f"chatcmpl-{rows[0]['id']}") == await one(engine, f"msg_{rows[0]['id']}") == found
        by_label = await one(engine, "mine")
        assert by_label is not None and by_label["id"] == rows[1]["id"]
        own = await one(engine, "mine", "g1")
        assert own is not None and own["id"] == rows[0]["id"]
        for ident, grant in ((rows[0]["id"], "g2"), ("chatcmpl-nobody", None), ("", None), ("nothing", None)):
            assert await one(engine, ident, grant) is None
        by_tenant = await one(engine, "mine", tenant="acme")
        assert by_tenant is not None and by_tenant["id"] == rows[0]["id"]
        assert await one(engine, rows[1]["id"], tenant="acme") is None
        behind = await one(engine, theirs, "g1")
        assert behind is not None and behind["id"] == rows[2]["id"]
        running = await find(engine, rows[3]["id"], "g1")
        assert running is not None
        shown = receipt(running)
        assert (shown["outcome"], shown["price_snapshot"]) == (None, None)
        assert "account" not in shown["attempts"][0] and "token" not in shown

    with_store(database, rows, check)


@pytest.mark.parametrize(
    ("given", "ns"),
    [
        ("0", 0),
        ("1750000000", 1_750_000_000 * SECOND),
        ("1750000000.25", 1_750_000_000_250_000_000),
        ("2025-06-15T15:06:40Z", 1_750_000_000 * SECOND),
        ("2025-06-15T17:06:40+02:00", 1_750_000_000 * SECOND),
        ("2025-06-15", 1_749_945_600 * SECOND),
    ],
)
def test_instants(given: str, ns: int) -> None:
    assert instant(given) == ns


@pytest.mark.parametrize(
    "given", ["", "yesterday", "nan", "inf", "-1", "1e30", "1e999999999", "9" * 5000, "2025-13-01", "1600-01-01"]
)
def test_what_is_no_instant_is_refused_in_a_sentence(given: str) -> None:
    with pytest.raises(ValueError, match="ISO 8601"):
        instant(given)


# ---------------------------------------------------------------------------------- how SQLite reads them


def test_no_page_scans_the_table_or_sorts(tmp_path: Any) -> None:
    """SQLite keeps no statistics here, so its plan for ten million rows is its plan for six hundred."""

    async def check(engine: AsyncEngine) -> None:
        for filters in combinations():
            asked: list[tuple[str, Any]] = []

            def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any, kept: Any = asked) -> None:
                kept.append((statement, parameters))

            event.listen(engine.sync_engine, "before_cursor_execute", note)
            await page(engine, filters, 50)
            event.remove(engine.sync_engine, "before_cursor_execute", note)
            async with engine.connect() as connection:
                for statement, parameters in asked:
                    plan = [
                        str(step[3])
                        for step in await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                    ]
                    assert not any("TEMP B-TREE" in step for step in plan), (filters, plan)
                    if not unfiltered(filters):
                        scans = [step for step in plan if step.startswith("SCAN") and "SUBQUERY" not in step.upper()]
                        # An index that holds nothing but what is asked for may be read from end to end
                        scans = [step for step in scans if not step.endswith("requests_continued")]
                        assert not [scan for scan in scans if scan.split()[1] == "requests"], (filters, plan)

    with_store(f"sqlite:///{tmp_path}/headgate.db", many(), check)


def unfiltered(filters: RequestFilters) -> bool:
    """The key is read backwards, and nearly every row is one of those that are wanted."""
    return filters in (RequestFilters(), RequestFilters(outcome="delivered"), RequestFilters(continued=False))
