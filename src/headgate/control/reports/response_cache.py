"""How calls of a window used the response cache, and what hits did not cost: from the receipts' rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.catalog.money import usd
from headgate.control.store.database import requests

_row = requests.c


async def cached(engine: AsyncEngine, where: Sequence[ColumnElement[bool]]) -> dict[str, Any] | None:
    """Return the JSON of ``cache`` in a report of usage; None if none of the calls used the cache.

    A call that was refused or failed was given no answer, and counts as neither hit nor miss.  ``saved_usd`` sums what
    is known of the answers' costs.  Raises SQLAlchemyError.
    """
    hits, misses = (func.sum(case((_row.cache == status, 1), else_=0)) for status in ("hit", "miss"))
    query = select(hits, misses, func.sum(_row.saved)).where(
        _row.cache.is_not(None), _row.outcome == "delivered", *where
    )
    async with engine.connect() as connection:
        row = (await connection.execute(query)).one()
    if row[0] is None:
        return None
    return {"hits": int(row[0]), "misses": int(row[1]), "saved_usd": usd(int(row[2] or 0))}
