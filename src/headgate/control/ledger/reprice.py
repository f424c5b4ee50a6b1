"""What today's prices would change for calls that were charged at others; and the corrections, as ledger entries.

A receipt's row keeps what was charged.  A correction is a transfer of its own between the caller and the provider.
Applied a second time it posts nothing, because the difference is then 0.  Failed attempts keep their cost, lost calls
their estimate.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from headgate.catalog.money import price_id
from headgate.control.audit.chain import Change, changing, record
from headgate.control.ledger.postings import ENTRY, PROVIDER, TENANT, TENANTS, TOKEN, Entries, balances
from headgate.control.ledger.prices import price_of
from headgate.control.store.database import requests, upsert
from headgate.control.store.ledger_tables import ledger_balances, ledger_entries
from headgate.model import Price, Provider, Share, TokenDetails, Usage
from headgate.model.receipt_ids import first_of
from headgate.policy import metering
from headgate.policy.admission.periods import DAY_NS

PAGE = 2000
PHASE = ":reprice:"
_details = msgspec.json.Decoder(TokenDetails)
_shares = msgspec.json.Decoder(tuple[Share, ...])
_READ = (
    *("id", "created_at", "closed_at", "grant_id", "tenant", "provider", "model", "prompt_tokens"),
    *(
        "completion_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
        "token_details",
        "cost",
        "shares",
    ),
    *("price_id", "basis"),
)


@dataclass(slots=True)
class PriceEffect:
    """The calls of one model at another price: nano-USD as charged, corrections included, and as they would be."""

    provider: str
    model: str
    calls: int = 0
    charged: int = 0
    corrected: int = 0


@dataclass(slots=True)
class Repricing:
    """``unknown``: calls whose model has no price today; they are left alone."""

    changes: dict[tuple[str, str], PriceEffect] = field(default_factory=dict)
    unknown: int = 0
    posted: int = 0


async def reprice(
    engine: AsyncEngine, providers: Mapping[str, Provider], since: int | None, until: int | None, *, apply: bool
) -> Repricing:
    """Go through the ended calls of a window (Unix ns); with ``apply`` post what differs.  Raises SQLAlchemyError."""
    found = Repricing()
    today = cache(lambda provider, model: price_of(providers, provider, model))
    after = first_of(since) if since is not None else ""
    while True:
        async with engine.connect() as connection:
            rows = await _page(connection, after, until)
            earlier = await _corrections(connection, rows)
        if not rows:
            return found
        after = rows[-1]["id"]
        entries = [entry for row in rows for entry in _corrected(found, row, earlier.get(row["id"], (0, 0)), today)]
        if apply and entries:
            await _post(engine, entries)
            found.posted += len({entry[0] for entry in entries})


async def _page(connection: AsyncConnection, after: str, until: int | None) -> list[Mapping[str, Any]]:
    final = requests.c.outcome != "lost"  # a lost call may yet be settled; NULL is of calls that run
    query = select(*(requests.c[name] for name in _READ)).where(final, requests.c.id > after)
    if until is not None:
        query = query.where(requests.c.id < first_of(until))
    return [dict(row) for row in (await connection.execute(query.order_by(requests.c.id).limit(PAGE))).mappings()]


async def _corrections(connection: AsyncConnection, rows: list[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """What earlier corrections have added to these calls, and how many there were."""
    if not rows:
        return {}
    ident = func.substr(ledger_entries.c.transfer, 1, 24)
    query = select(ident, func.sum(ledger_entries.c.amount), func.count()).where(
        ledger_entries.c.transfer >= rows[0]["id"],
        ledger_entries.c.transfer < rows[-1]["id"] + "~",
        ledger_entries.c.transfer.like(f"%{PHASE}%"),
        ledger_entries.c.account.like(f"{TOKEN}%"),
    )
    return {row[0]: (int(row[1]), row[2]) for row in await connection.execute(query.group_by(ident))}


def _corrected(
    found: Repricing, row: Mapping[str, Any], earlier: tuple[int, int], today: Any
) -> Iterator[tuple[str, str, int, int, int]]:
    price: Price = today(row["provider"], row["model"])
    name = price_id(price)
    if not row["provider"] or (name == row["price_id"] and not earlier[1] and not row["shares"]):
        return
    cost = _cost(row, price, today)
    if cost is None:
        found.unknown += 1
        return
    charged = (row["cost"] or 0) + earlier[0]
    difference = cost - charged
    if not difference:
        return
    key = (row["provider"], row["model"])
    change = found.changes.setdefault(key, PriceEffect(*key))
    change.calls += 1
    change.charged += charged
    change.corrected += cost
    transfer = f"{row['id']}{PHASE}{name}" + (f":{earlier[1]}" if earlier[1] else "")
    amounts = [(TOKEN + row["grant_id"], difference), (PROVIDER + row["provider"], -difference)]
    if row["tenant"]:
        amounts += [(TENANT + row["tenant"], difference), (TENANTS, -difference)]
    now = time.time_ns()
    for account, amount in amounts:
        yield transfer, account, amount, now, row["created_at"] // DAY_NS


def _cost(row: Mapping[str, Any], price: Price, today: Any) -> int | None:
    """What the call costs at today's prices; the hour that it ended in decides where they depend on it."""
    at = (row["closed_at"] or row["created_at"]) / 1e9
    usage = Usage(
        row["prompt_tokens"], row["completion_tokens"], row["cached_tokens"] or 0, row["cache_write_tokens"] or 0,
        row["reasoning_tokens"] or 0, row["basis"],
        _details.decode(row["token_details"]) if row["token_details"] else None,
    )  # fmt: skip
    if not row["shares"]:
        return metering.cost(usage, metering.price_at(price, at))
    parts = [
        (metering.price_at(today(share.provider, share.model), at), share.completion_tokens)
        for share in _shares.decode(row["shares"])
    ]
    return metering.shared_cost(usage, parts)


async def _post(engine: AsyncEngine, entries: Entries) -> None:
    sums = upsert(engine, ledger_balances)
    added = {"amount": ledger_balances.c.amount + sums.excluded.amount}
    rows = [dict(zip(("account", "day", "amount"), row, strict=True)) for row in balances(entries)]
    async with changing(engine) as connection:
        await connection.execute(ledger_entries.insert(), [dict(zip(ENTRY, entry, strict=True)) for entry in entries])
        await connection.execute(sums.on_conflict_do_update(index_elements=["account", "day"], set_=added), rows)
        calls = sorted({transfer[:24] for transfer, *_ in entries})
        charged = sum(amount for _, account, amount, *_ in entries if account.startswith(TOKEN))
        posted = {"calls": len(calls), "first": calls[0], "last": calls[-1], "difference_nano_usd": charged}
        await record(connection, Change("usage", "ledger", "repriced", None, posted))
