"""The prices that receipts name: every one that was ever in force, by the digest of its content.

Owns the table ``prices``.  A receipt's ``price_id`` leads to what it was charged at, whatever the list says today.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.catalog.money import price_id
from headgate.control.store.database import upsert
from headgate.control.store.ledger_tables import prices
from headgate.model import Price, Provider, Snapshot


class PriceBook:
    """Mutable: the ids that are known to be stored."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._stored: set[str] = set()

    async def keep(self, snapshot: Snapshot) -> None:
        """Store the prices of ``snapshot`` that are new.  Raises SQLAlchemyError."""
        found = await asyncio.to_thread(_distinct, snapshot)
        fresh = [name for name in found if name not in self._stored]
        if not fresh:
            return
        now = time.time_ns()
        rows = [{"id": name, "body": msgspec.json.encode(found[name]).decode(), "first_at": now} for name in fresh]
        async with self._engine.begin() as connection:
            await connection.execute(upsert(self._engine, prices).on_conflict_do_nothing(index_elements=["id"]), rows)
        self._stored.update(fresh)


def _distinct(snapshot: Snapshot) -> dict[str, Price]:
    found = {price_id(price): price for price in set(_all(snapshot.providers.values()))}
    found.pop("", None)
    return found


def _all(providers: Iterable[Provider]) -> Iterable[Price]:
    for provider in providers:
        yield provider.price
        for rows in (provider.models or {}, provider.catalog):
            for row in rows.values():
                yield row.price


def price_of(providers: Mapping[str, Provider], provider: str, model: str) -> Price:
    """Return what an upstream model costs today; ``Price()`` where nothing is known."""
    known = providers.get(provider)
    if known is None:
        return Price()
    rows = {**known.catalog, **(known.models or {})}
    row = next((row for row in rows.values() if (row.upstream_model or row.id) == model), None)
    return known.price if row is None else row.price
