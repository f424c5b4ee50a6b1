"""The alerts that were raised, in the store: none is raised twice, and none is lost on its way to a webhook."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from sqlalchemy import delete, or_, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.store.alert_tables import alerts
from headgate.control.telemetry.alerts import Alert

NANO = 1_000_000_000
KEPT_S = 90 * 86_400.0
UNSENT_S = 86_400.0  # so old an alert is not sent any more


class RaisedAlert(Struct, frozen=True):
    """``id`` is ordered by time; ``at`` is Unix ns.  ``pending``: the webhooks that have not got it."""

    id: str
    at: int
    type: str
    subject: str
    message: str
    data: dict[str, Any]
    pending: tuple[str, ...] = ()


class AlertBook:
    """Mutable: the level of each subject and scope that still counts, and which webhooks wait for which alert."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._levels: dict[tuple[str, str, str], tuple[int, float | None]] = {}
        self._pending: dict[str, list[str]] = {}
        self._order = asyncio.Lock()  # of the writes for one alert: the last one must be the newest

    async def begin(self, now: float) -> list[RaisedAlert]:
        """Read what still counts.  Returns the alerts that webhooks still wait for.  Raises SQLAlchemyError."""
        row = alerts.c
        columns = row.type, row.subject, row.scope, row.level, row.until
        counting = select(*columns).where(or_(row.until.is_(None), row.until > int(now * NANO)))
        waiting = select(alerts).where(row.pending.is_not(None)).order_by(row.id)
        self._levels.clear()
        async with self._engine.connect() as connection:
            for kind, subject, scope, level, until in await connection.execute(counting):
                self._remember((kind, subject, scope), level, None if until is None else until / NANO)
            unsent = [_raised(one) for one in await connection.execute(waiting)]
        self._pending = {one.id: list(one.pending) for one in unsent}
        for one in unsent:
            if one.at < (now - UNSENT_S) * NANO:
                for name in one.pending:
                    await self.settled(one.id, name)
        return [one for one in unsent if one.id in self._pending]

    async def raise_once(self, alert: Alert, webhooks: Iterable[str], now: float) -> RaisedAlert | None:
        """Write it; None where it was raised before.  Raises SQLAlchemyError."""
        key = (alert.type, alert.subject, alert.scope)
        level, until = self._levels.get(key, (0, 0.0))
        if level >= alert.level and (until is None or until > now):
            return None
        at = int(now * NANO)
        made = RaisedAlert(
            f"{at:016x}{secrets.token_hex(4)}", at, alert.type, alert.subject, alert.message, dict(alert.data),
            tuple(webhooks),
        )  # fmt: skip
        async with self._engine.begin() as connection:
            await connection.execute(
                alerts.insert().values(
                    id=made.id,
                    at=at,
                    type=alert.type,
                    subject=alert.subject,
                    scope=alert.scope,
                    level=alert.level,
                    message=alert.message,
                    data=json.dumps(made.data),
                    until=None if alert.until is None else int(alert.until * NANO),
                    pending=json.dumps(made.pending) if made.pending else None,
                )
            )
        self._remember(key, alert.level, alert.until)
        if made.pending:
            self._pending[made.id] = list(made.pending)
        return made

    def _remember(self, key: tuple[str, str, str], level: int, until: float | None) -> None:
        known = self._levels.get(key)
        if known is None or level >= known[0] or (known[1] is not None and (until is None or until > known[1])):
            self._levels[key] = (level, until)

    def lasting(self, kind: str) -> list[tuple[str, str]]:
        """(subject, scope) of the states that were reported and are not over."""
        return [(key[1], key[2]) for key, (_level, until) in self._levels.items() if key[0] == kind and until is None]

    async def over(self, kind: str, subject: str, scope: str, until: float) -> None:
        """A state is over; from ``until`` on it is reported again.  Raises SQLAlchemyError."""
        row = alerts.c
        these = row.type == kind, row.subject == subject, row.scope == scope, row.until.is_(None)
        async with self._engine.begin() as connection:
            await connection.execute(update(alerts).where(*these).values(until=int(until * NANO)))
        key = (kind, subject, scope)
        self._levels[key] = (self._levels[key][0], until)

    async def settled(self, ident: str, webhook: str) -> None:
        """A webhook has got an alert, or will not.  Raises SQLAlchemyError."""
        async with self._order:
            waiting = self._pending.get(ident)
            if waiting is None or webhook not in waiting:
                return
            waiting.remove(webhook)
            left = json.dumps(waiting) if waiting else None
            if not waiting:
                del self._pending[ident]
            async with self._engine.begin() as connection:
                await connection.execute(update(alerts).where(alerts.c.id == ident).values(pending=left))

    async def forget(self, now: float) -> None:
        """Drop what is old and counts no more.  Raises SQLAlchemyError."""
        for key in [key for key, (_level, until) in self._levels.items() if until is not None and until <= now]:
            del self._levels[key]
        row = alerts.c
        old = row.id < f"{int((now - KEPT_S) * NANO):016x}", row.until < int(now * NANO)
        async with self._engine.begin() as connection:
            await connection.execute(delete(alerts).where(*old))


async def page(engine: AsyncEngine, limit: int, before: str | None) -> list[RaisedAlert]:
    """The newest alerts first, those raised before the one with the id ``before``.  Raises SQLAlchemyError."""
    query = select(alerts).order_by(alerts.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(alerts.c.id < before)
    async with engine.connect() as connection:
        return [_raised(row) for row in await connection.execute(query)]


def _raised(row: Row[Any]) -> RaisedAlert:
    return RaisedAlert(
        row.id, row.at, row.type, row.subject, row.message, json.loads(row.data),
        tuple(json.loads(row.pending)) if row.pending else (),
    )  # fmt: skip
