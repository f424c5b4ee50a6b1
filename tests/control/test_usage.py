"""What was used, on both databases: the operator's report, a client's own figures, the uses of thirty days."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.ingest import rollup
from headgate.control.ingest.recorder import Recorder
from headgate.control.reports.usage import UsageFilters, of_grant, report, uses_30d
from headgate.control.store.database import open_store, usage_days
from headgate.model import Record, Share
from tests.control.journal_writer import SECOND, Writer, closed, opened, run

DAY = 86_400 * SECOND
NOON = 0  # of today, in nanoseconds
ZERO = {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "cost_usd": 0.0}


@pytest.fixture(autouse=True)
def today() -> None:
    """Of each test anew: they may run across midnight."""
    globals()["NOON"] = int(time.time()) // 86_400 * DAY + DAY // 2


def call(
    number: int, days_ago: int = 0, grant: str = "g1", requested: str = "headgate/chat", **end: Any
) -> list[Record]:
    at = NOON - days_ago * DAY + number
    ident = f"{at // 1_000_000:011x}{number:013x}"
    return [
        opened(number, id=ident, at=at, grant=grant, requested=requested),
        closed(number, id=ident, at=at + SECOND, **end),
    ]


def recorded(
    database: str, folder: Path, records: list[Record], check: Callable[[AsyncEngine], Awaitable[None]]
) -> None:
    async def main() -> None:
        engine = await open_store(database)
        writer = Writer(folder / "journal")
        recorder = Recorder(engine, folder / "journal", 60.0)
        await recorder.start()
        try:
            writer.write(*records)
            await recorder.catch_up()
            await check(engine)
        finally:
            await recorder.stop()
            await engine.dispose()

    run(main())


def some() -> list[Record]:
    return [
        *call(1),
        *call(2, days_ago=1, grant="g2", model="small", cost=-1),
        *call(3, days_ago=1, outcome="failed", code="upstream_error", completion_tokens=0, model="made-up", cost=0),
        *call(4, days_ago=40, requested="up-b/big", provider="up-b"),
        *call(5, outcome="cancelled", completion_tokens=3, cost=5),
        *call(6, outcome="refused", provider="", model="", prompt_tokens=0, completion_tokens=0, cost=0),
    ]


def by(rows: list[dict[str, Any]]) -> dict[str | None, tuple[Any, ...]]:
    return {row["group"]: (row["requests"], row["delivered"], row["failed"], row["cost_usd"]) for row in rows}


def test_a_report_groups_by_everything_that_it_may(database: str, tmp_path: Path) -> None:
    async def check(engine: AsyncEngine) -> None:
        async def ask(group: str, **filters: Any) -> dict[str | None, tuple[Any, ...]]:
            return by((await report(engine, group, UsageFilters(**filters)))["data"])

        price, cut = 110_000 / 1e9, 5 / 1e9
        assert await ask("model") == {
            "up-a/big-0613": (2, 1, 0, price + cut),
            "up-a/small": (1, 1, 0, None),
            "up-b/big-0613": (1, 1, 0, price),
            "up-a/made-up": (1, 0, 1, 0.0),
            None: (1, 0, 1, 0.0),
        }
        assert await ask("provider") == {"up-a": (4, 2, 1, price + cut), "up-b": (1, 1, 0, price), None: (1, 0, 1, 0.0)}
        assert await ask("requested") == {
            "headgate/chat": (4, 2, 1, price + cut),
            "up-b/big": (1, 1, 0, price),
            None: (1, 0, 1, 0.0),
        }
        assert await ask("token") == {"g1": (5, 2, 2, 2 * price + cut), "g2": (1, 1, 0, None)}
        assert set(await ask("outcome")) == {"delivered", "failed", "cancelled", "refused"}
        days = [datetime.fromtimestamp((NOON - ago * DAY) // SECOND, UTC).date().isoformat() for ago in (40, 1, 0)]
        assert list(await ask("day")) == days
        assert (await ask("day"))[days[2]] == (3, 1, 1, price + cut)

        assert await ask("model", token="g2") == {"up-a/small": (1, 1, 0, None)}
        assert await ask("token", provider="up-b") == {"g1": (1, 1, 0, price)}
        assert await ask("token", model="up-a/small") == await ask("token", model="small") == {"g2": (1, 1, 0, None)}
        assert await ask("outcome", token="g1", since=NOON) == {
            "delivered": (1, 1, 0, price),
            "cancelled": (1, 0, 0, cut),
            "refused": (1, 0, 1, 0.0),
        }
        assert await ask("provider", until=NOON - 39 * DAY) == {"up-b": (1, 1, 0, price)}
        assert await ask("model", token="nobody") == {}

    recorded(database, tmp_path, some(), check)


def test_an_answer_that_several_models_wrote_counts_at_each(database: str, tmp_path: Path) -> None:
    """The call is counted where it ended, tokens and costs where they were written; totals are the call's."""
    shares = (Share("up-a", "big", 90, 4, 70_000), Share("up-b", "small", 0, 6, 40_000))
    records = [*call(1, provider="up-b", model="small", shares=shares), *call(2)]
    unpriced = (Share("up-a", "big", 90, 1), Share("up-b", "small", 0, 9))
    records += call(3, provider="up-b", model="small", shares=unpriced, cost=-1)

    async def check(engine: AsyncEngine) -> None:
        found = {row["group"]: row for row in (await report(engine, "model", UsageFilters()))["data"]}
        names = ("requests", "prompt_tokens", "completion_tokens", "cost_usd", "unpriced_requests")
        assert {group: tuple(row[name] for name in names) for group, row in found.items()} == {
            "up-a/big": (0, 180, 5, 70_000 / 1e9, 0),
            "up-a/big-0613": (1, 90, 10, 110_000 / 1e9, 0),
            "up-b/small": (2, 0, 15, 40_000 / 1e9, 1),
        }
        total = (await report(engine, "token", UsageFilters()))["total"]
        assert (total["requests"], total["prompt_tokens"], total["completion_tokens"]) == (3, 270, 30)
        days = select(usage_days).order_by(*usage_days.primary_key.columns)
        async with engine.begin() as connection:
            kept = (await connection.execute(days)).all()
            await connection.run_sync(rollup.recount)
            assert (await connection.execute(days)).all() == kept

    recorded(database, tmp_path, records, check)


def test_a_report_says_which_days_it_covers_and_what_all_came_to(database: str, tmp_path: Path) -> None:
    async def check(engine: AsyncEngine) -> None:
        found = await report(engine, "model", UsageFilters(since=NOON - DAY, until=NOON))
        today = NOON // DAY * 86_400
        assert (found["since"], found["until"]) == (today - 86_400, today + 86_400)
        assert (found["object"], found["has_more"], found["next"]) == ("list", False, None)
        assert found["total"] == {
            "requests": 5,
            "delivered": 2,
            "failed": 2,
            "prompt_tokens": 360,
            "completion_tokens": 23,
            "cached_tokens": 20,
            "reasoning_tokens": 0,
            "unpriced_requests": 1,
            "operator_cost_usd": None,
            "cost_usd": 110_005 / 1e9,
        }

    recorded(database, tmp_path, some(), check)


def test_a_client_sees_its_own_totals_today_and_this_month(database: str, tmp_path: Path) -> None:
    async def check(engine: AsyncEngine) -> None:
        own = await of_grant(engine, "g1")
        assert (own["object"], own["requests"], own["total_tokens"]) == ("headgate.usage", 5, 383)
        assert own["since"] == (NOON - 40 * DAY) // SECOND
        assert own["today"]["requests"] == 3
        assert 3 <= own["month"]["requests"] <= 4  # yesterday may have been another month's
        other = await of_grant(engine, "g2")
        assert (other["requests"], other["cost_usd"], other["unpriced_requests"]) == (1, None, 1)
        nobody = await of_grant(engine, "nobody")
        assert nobody.items() >= {**ZERO, "since": None}.items()

    recorded(database, tmp_path, some(), check)


def test_nothing_recorded_is_nothing_used(database: str, tmp_path: Path) -> None:
    async def check(engine: AsyncEngine) -> None:
        assert (await report(engine, "model", UsageFilters()))["data"] == []
        assert (await report(engine, "day", UsageFilters()))["total"]["cost_usd"] == 0.0
        assert await uses_30d(engine) == ({}, {})
        assert (await of_grant(engine, "g1")).items() >= {**ZERO, "since": None}.items()

    recorded(database, tmp_path, [], check)


def test_uses_count_what_was_served_in_thirty_days(database: str, tmp_path: Path) -> None:
    async def check(engine: AsyncEngine) -> None:
        assert await uses_30d(engine) == ({"up-a/big-0613": 2, "up-a/small": 1}, {"headgate/chat": 3})

    recorded(database, tmp_path, some(), check)


@pytest.mark.parametrize(
    ("end", "alias", "model"),
    [
        ({"outcome": "failed", "code": "all_attempts_failed"}, "headgate/chat", "up-a/big"),
        ({"outcome": "failed", "code": "rate_limit_exceeded", "provider": "", "model": ""}, "headgate/chat", None),
        ({"outcome": "hollow", "code": "upstream_hollow_answer"}, "headgate/chat", "up-a/big"),
        ({"outcome": "lost", "code": "lost"}, "headgate/chat", "up-a/big"),
        ({"outcome": "refused", "code": "no_provider_key", "provider": "", "model": ""}, "headgate/chat", None),
        ({"outcome": "refused", "code": "no_qualifying_model", "provider": "", "model": ""}, "headgate/chat", None),
        ({"outcome": "refused", "code": "model_not_found", "provider": "", "model": ""}, None, None),
        ({"outcome": "refused", "code": "invalid_request", "provider": "", "model": ""}, None, None),
        ({"outcome": "failed", "code": "model_not_found"}, None, None),
    ],
)
def test_usage_lists_failed_calls_under_the_names_that_were_asked_for(
    database: str, tmp_path: Path, end: dict[str, Any], alias: str | None, model: str | None
) -> None:
    records = call(1, **{"model": "big", "completion_tokens": 0, "prompt_tokens": 0, "cost": 0, **end})

    async def check(engine: AsyncEngine) -> None:
        for _ in range(2):
            assert by((await report(engine, "requested", UsageFilters()))["data"]) == {alias: (1, 0, 1, 0.0)}
            assert by((await report(engine, "model", UsageFilters()))["data"]) == {model: (1, 0, 1, 0.0)}
            assert await uses_30d(engine) == ({}, {})
            async with engine.begin() as connection:
                await connection.run_sync(rollup.recount)

    recorded(database, tmp_path, records, check)


def test_names_that_do_not_exist_make_no_rows(database: str, tmp_path: Path) -> None:
    """A client may ask for ten thousand models that do not exist."""
    vain = [
        record
        for number in range(2000)
        for record in call(
            number,
            requested=f"up-a/made-up-{number}",
            model=f"made-up-{number}",
            outcome="failed",
            code="model_not_found",
            completion_tokens=0,
        )
    ]

    async def check(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            assert (await connection.execute(select(func.count()).select_from(usage_days))).scalar() == 3
        assert (await report(engine, "model", UsageFilters()))["total"]["failed"] == 2000

    recorded(database, tmp_path, vain, check)


def test_a_figure_that_cannot_be_does_not_stop_the_sums(database: str, tmp_path: Path) -> None:
    """An upstream may claim any number of tokens; a hundred of them must not be more than a sum can hold."""
    wild = [
        record
        for number in range(100)
        for record in call(number, prompt_tokens=2**63 - 1, completion_tokens=2**62, cost=2**63 - 1)
    ]

    async def check(engine: AsyncEngine) -> None:
        total = (await report(engine, "token", UsageFilters()))["total"]
        assert (total["requests"], total["unpriced_requests"], total["cost_usd"]) == (100, 100, None)
        assert total["prompt_tokens"] == 100 * 2**50

    recorded(database, tmp_path, wild, check)
