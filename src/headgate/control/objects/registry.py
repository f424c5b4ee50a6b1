"""What the operator keeps in the store instead of in the file: providers, their accounts, aliases, facts of models.

Owns those four tables and the bodies in them (msgspec structs as JSON; a key that a newer release wrote is skipped).
``Objects`` is immutable: a change makes the next one, which is judged and written before it counts.  Prices are
nano-USD per million tokens, as in ``model.Price``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy import Table, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from headgate.control.store.database import (
    model_overrides,
    stored_accounts,
    stored_aliases,
    stored_providers,
    upsert,
)
from headgate.model import ModelRow, Price, TargetRef

log = structlog.get_logger("headgate.objects")
B = TypeVar("B", bound=Struct)


class PoolBody(Struct, frozen=True, omit_defaults=True):
    """Only what is set counts."""

    idle_s: float | None = None
    max_age_s: float | None = None
    wait_s: float | None = None


class ModelBody(Struct, frozen=True, omit_defaults=True):
    """Facts of one model; None: not said."""

    title: str | None = None
    upstream_model: str | None = None
    canonical: str | None = None
    context_window: int | None = None
    max_output: int | None = None
    capabilities: tuple[str, ...] | None = None
    price: Price | None = None
    timeouts: Mapping[str, float] = {}

    def row(self, ident: str) -> ModelRow:
        """The row of a model that nothing else is known of."""
        return self.over(ModelRow(ident))

    def over(self, row: ModelRow) -> ModelRow:
        """``row`` with what is said here in its place."""
        said = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) not in (None, {})}
        return msgspec.structs.replace(row, **said)

    def beneath(self, row: ModelRow) -> ModelRow:
        """``row`` with what is said here where it says nothing."""
        known = {name for name in ("title", "context_window", "max_output") if getattr(row, name) is not None}
        if row.capabilities:
            known.add("capabilities")
        if row.price != Price():
            known.add("price")
        return msgspec.structs.replace(self, **dict.fromkeys(known, None)).over(row)


class ProviderBody(Struct, frozen=True, omit_defaults=True):
    """A provider as it was declared; None: as the preset has it, else the default.  The values of ``headers`` that are
    empty are in ``sealed_headers`` (``control.headers``).
    """

    preset: str | None = None
    title: str | None = None
    base_url: str | None = None
    dialect: str | None = None
    auth: str | None = None
    headers: Mapping[str, str] | None = None
    forward_headers: tuple[str, ...] | None = None
    quirks: tuple[str, ...] | None = None
    training: str | None = None
    prefill: str | None = None
    prefill_trims: str | None = None
    models: Mapping[str, ModelBody] | None = None
    max_connections: int | None = None
    pool: PoolBody = PoolBody()
    sealed_headers: Mapping[str, bytes] = {}


class AliasBody(Struct, frozen=True, omit_defaults=True):
    """An alias as it was declared.  ``conduct``: further members of ``model.Alias``."""

    targets: tuple[TargetRef, ...] = ()
    use_case: str | None = None
    timeouts: Mapping[str, float] = {}
    conduct: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Kept:
    """When an object was made and last changed: Unix ns."""

    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class StoredProvider(Kept):
    body: ProviderBody


@dataclass(frozen=True, slots=True)
class StoredAlias(Kept):
    body: AliasBody


@dataclass(frozen=True, slots=True)
class StoredModel(Kept):
    body: ModelBody


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """A sealed key.  ``hint`` is what may be shown of it."""

    provider: str
    label: str
    sealed: bytes = field(repr=False)
    hint: str
    priority: int
    free: bool
    created_at: int

    @property
    def id(self) -> str:
        return f"{self.provider}/{self.label}"


@dataclass(frozen=True, slots=True)
class Objects:
    """Everything that the store declares, by name; accounts and models by ``provider/…``.  In order of creation."""

    providers: Mapping[str, StoredProvider] = field(default_factory=dict)
    accounts: Mapping[str, StoredAccount] = field(default_factory=dict)
    aliases: Mapping[str, StoredAlias] = field(default_factory=dict)
    models: Mapping[str, StoredModel] = field(default_factory=dict)


def now(before: Kept | None = None) -> tuple[int, int]:
    """``created_at`` and ``updated_at`` of what is written at this moment."""
    at = time.time_ns()
    return (before.created_at if before else at), at


async def load(engine: AsyncEngine) -> Objects:
    """What the store holds.  A body that cannot be read is logged and left out.  Raises SQLAlchemyError."""
    async with engine.connect() as connection:
        providers = await _bodies(connection, stored_providers, ProviderBody)
        aliases = await _bodies(connection, stored_aliases, AliasBody)
        models = await _bodies(connection, model_overrides, ModelBody)
        rows = await connection.execute(select(stored_accounts).order_by(stored_accounts.c.created_at))
        accounts = [
            StoredAccount(
                row.provider, row.label, bytes(row.sealed), row.hint, row.priority, bool(row.free), row.created_at
            )
            for row in rows
        ]
    return Objects(
        {name: StoredProvider(*times, body) for name, times, body in providers},
        {account.id: account for account in accounts},
        {name: StoredAlias(*times, body) for name, times, body in aliases},
        {name: StoredModel(*times, body) for name, times, body in models},
    )


async def _bodies(connection: AsyncConnection, table: Table, kind: type[B]) -> list[tuple[str, tuple[int, int], B]]:
    found = []
    for key, body, created, updated in await connection.execute(select(table).order_by(table.c.created_at)):
        try:
            found.append((key, (created, updated), msgspec.json.decode(body, type=kind)))
        except msgspec.MsgspecError as error:
            log.error("an object in the store cannot be read; left out", table=table.name, name=key, error=str(error))
    return found


async def save(engine: AsyncEngine, before: Objects, after: Objects) -> None:
    """Writes what differs, in one transaction.  Raises SQLAlchemyError."""
    async with engine.begin() as connection:
        await _save_bodies(engine, connection, stored_providers, before.providers, after.providers)
        await _save_bodies(engine, connection, stored_aliases, before.aliases, after.aliases)
        await _save_bodies(engine, connection, model_overrides, before.models, after.models)
        await _delete(connection, stored_accounts, before.accounts, after.accounts)
        for ident, account in after.accounts.items():
            if before.accounts.get(ident) != account:
                await _upsert(
                    engine,
                    connection,
                    stored_accounts,
                    {
                        "id": ident,
                        "provider": account.provider,
                        "label": account.label,
                        "sealed": account.sealed,
                        "hint": account.hint,
                        "priority": account.priority,
                        "free": account.free,
                        "created_at": account.created_at,
                    },
                )


Bodies = Mapping[str, StoredProvider] | Mapping[str, StoredAlias] | Mapping[str, StoredModel]


async def _save_bodies(
    engine: AsyncEngine, connection: AsyncConnection, table: Table, before: Bodies, after: Bodies
) -> None:
    await _delete(connection, table, before, after)
    key = table.primary_key.columns.keys()[0]
    for name, kept in after.items():
        if before.get(name) != kept:
            body = msgspec.json.encode(kept.body).decode()
            values = {key: name, "body": body, "created_at": kept.created_at, "updated_at": kept.updated_at}
            await _upsert(engine, connection, table, values)


async def _delete(
    connection: AsyncConnection, table: Table, before: Mapping[str, object], after: Mapping[str, object]
) -> None:
    (key,) = table.primary_key.columns
    for name in before.keys() - after.keys():
        await connection.execute(delete(table).where(key == name))


async def _upsert(engine: AsyncEngine, connection: AsyncConnection, table: Table, values: Mapping[str, object]) -> None:
    statement = upsert(engine, table).values(values)
    key = table.primary_key.columns.keys()[0]
    changes = {name: statement.excluded[name] for name in values if name != key}
    await connection.execute(statement.on_conflict_do_update(index_elements=[key], set_=changes))
