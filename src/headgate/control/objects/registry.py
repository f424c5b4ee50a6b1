"""What the operator keeps in the store instead of in the file: providers, their accounts, aliases, prompts, ….

Owns those tables; the bodies in them are ``resources`` as JSON (``Resource.to_store``).  ``Objects`` is
immutable: a change makes the next one, which is judged and written before it counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import structlog
from pydantic import ValidationError
from sqlalchemy import Row, Table, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from headgate.control.audit.chain import Change, changed_secret, changing, differences, record
from headgate.control.store.database import (
    model_overrides,
    stored_accounts,
    stored_aliases,
    stored_groups,
    stored_prompts,
    stored_providers,
    stored_tenants,
    upsert,
)
from headgate.resources import wording
from headgate.resources.account import AccountTerms
from headgate.resources.alias import AliasWish
from headgate.resources.callers.group import GroupWish
from headgate.resources.callers.prompt import PromptBody
from headgate.resources.callers.tenant import TenantWish
from headgate.resources.fields import Resource
from headgate.resources.model_row import FactsWish
from headgate.resources.provider import ProviderBody

log = structlog.get_logger("headgate.objects")
B = TypeVar("B", bound=Resource)


@dataclass(frozen=True, slots=True)
class StoredNoun:
    """When an object was made and last changed: Unix ns."""

    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class StoredProvider(StoredNoun):
    body: ProviderBody


@dataclass(frozen=True, slots=True)
class StoredAlias(StoredNoun):
    body: AliasWish


@dataclass(frozen=True, slots=True)
class StoredModel(StoredNoun):
    body: FactsWish


@dataclass(frozen=True, slots=True)
class StoredTenant(StoredNoun):
    body: TenantWish


@dataclass(frozen=True, slots=True)
class StoredGroup(StoredNoun):
    body: GroupWish


@dataclass(frozen=True, slots=True)
class StoredPrompt(StoredNoun):
    body: PromptBody


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """A sealed key.  ``hint`` is what may be shown of it, ``terms`` what holds for its use."""

    provider: str
    label: str
    sealed: bytes = field(repr=False)
    hint: str
    priority: int
    free: bool
    created_at: int
    terms: AccountTerms = field(default_factory=AccountTerms)

    @property
    def id(self) -> str:
        return f"{self.provider}/{self.label}"


@dataclass(frozen=True, slots=True)
class Objects:
    """Everything that the store declares, by name; accounts and models by ``provider/…``, prompts by their key.  In
    order of creation.
    """

    providers: Mapping[str, StoredProvider] = field(default_factory=dict)
    accounts: Mapping[str, StoredAccount] = field(default_factory=dict)
    aliases: Mapping[str, StoredAlias] = field(default_factory=dict)
    models: Mapping[str, StoredModel] = field(default_factory=dict)
    tenants: Mapping[str, StoredTenant] = field(default_factory=dict)
    groups: Mapping[str, StoredGroup] = field(default_factory=dict)
    prompts: Mapping[str, StoredPrompt] = field(default_factory=dict)


def now(before: StoredNoun | None = None) -> tuple[int, int]:
    """``created_at`` and ``updated_at`` of what is written at this moment."""
    at = time.time_ns()
    return (before.created_at if before else at), at


async def load(engine: AsyncEngine) -> Objects:
    """What the store holds.  A body that cannot be read is logged and left out.  Raises SQLAlchemyError."""
    async with engine.connect() as connection:
        providers = await _bodies(connection, stored_providers, ProviderBody)
        aliases = await _bodies(connection, stored_aliases, AliasWish)
        models = await _bodies(connection, model_overrides, FactsWish)
        tenants = await _bodies(connection, stored_tenants, TenantWish)
        groups = await _bodies(connection, stored_groups, GroupWish)
        prompts = await _bodies(connection, stored_prompts, PromptBody)
        rows = await connection.execute(select(stored_accounts).order_by(stored_accounts.c.created_at))
        accounts = [account for row in rows if (account := _account(row)) is not None]
    return Objects(
        {name: StoredProvider(*times, body) for name, times, body in providers},
        {account.id: account for account in accounts},
        {name: StoredAlias(*times, body) for name, times, body in aliases},
        {name: StoredModel(*times, body) for name, times, body in models},
        {name: StoredTenant(*times, body) for name, times, body in tenants},
        {name: StoredGroup(*times, body) for name, times, body in groups},
        {key: StoredPrompt(*times, body) for key, times, body in prompts},
    )


def _account(row: Row[Any]) -> StoredAccount | None:
    values = {one.name: getattr(row, one.name) for one in fields(StoredAccount)}
    try:
        terms = AccountTerms.from_store(row.terms)
    except ValidationError as error:  # never without its limits and its owner
        wrong = wording.sentence(error)
        log.error("an object in the store cannot be read; left out", table="accounts", name=row.id, error=wrong)
        return None
    return StoredAccount(**{**values, "sealed": bytes(row.sealed), "free": bool(row.free), "terms": terms})


async def _bodies(connection: AsyncConnection, table: Table, kind: type[B]) -> list[tuple[str, tuple[int, int], B]]:
    found = []
    for key, body, created, updated in await connection.execute(select(table).order_by(table.c.created_at)):
        try:
            found.append((key, (created, updated), kind.from_store(body)))
        except ValidationError as error:
            wrong = wording.sentence(error)
            log.error("an object in the store cannot be read; left out", table=table.name, name=key, error=wrong)
    return found


async def save(engine: AsyncEngine, before: Objects, after: Objects, changes: Sequence[Change] | None = None) -> None:
    """Writes what differs, and the audit log's rows of it, in one transaction.  ``changes``: instead of a row for each
    object.  Raises SQLAlchemyError.
    """
    async with changing(engine) as connection:
        await _save_bodies(engine, connection, stored_providers, before.providers, after.providers)
        await _save_bodies(engine, connection, stored_aliases, before.aliases, after.aliases)
        await _save_bodies(engine, connection, model_overrides, before.models, after.models)
        await _save_bodies(engine, connection, stored_tenants, before.tenants, after.tenants)
        await _save_bodies(engine, connection, stored_groups, before.groups, after.groups)
        await _save_bodies(engine, connection, stored_prompts, before.prompts, after.prompts)
        await _delete(connection, stored_accounts, before.accounts, after.accounts)
        for ident, account in after.accounts.items():
            if before.accounts.get(ident) != account:
                values = {one.name: getattr(account, one.name) for one in fields(StoredAccount)}
                values |= {"id": ident, "terms": account.terms.to_store()}
                await _upsert(engine, connection, stored_accounts, values)
        await record(connection, *(changes_between(before, after) if changes is None else changes))


def changes_between(before: Objects, after: Objects) -> list[Change]:
    """The audit log's account of a change: bodies and accounts without what is sealed in them."""
    return [
        *differences("provider", *_described(before.providers, after.providers)),
        *differences("account", *_described(before.accounts, after.accounts)),
        *differences("alias", *_described(before.aliases, after.aliases)),
        *differences("model", *_described(before.models, after.models)),
        *differences("tenant", *_described(before.tenants, after.tenants)),
        *differences("budget", *_described(before.groups, after.groups)),
        *differences("prompt", *_described(before.prompts, after.prompts)),
    ]


Described = dict[str, dict[str, Any]]


def _described(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Described, Described]:
    was = {name: _shown(kept) for name, kept in before.items() if after.get(name) is not kept}
    will = {name: _shown(kept) for name, kept in after.items() if before.get(name) is not kept}
    for name in was.keys() & will.keys():
        if _sealed(before[name]) != _sealed(after[name]):
            will[name] = changed_secret(will[name])
    return was, will


def _shown(kept: StoredNoun | StoredAccount) -> dict[str, Any]:
    if isinstance(kept, StoredAccount):
        terms = kept.terms.model_dump(mode="json", exclude_defaults=True)
        return {"priority": kept.priority, "free": kept.free, **terms}
    body: Resource = kept.body  # type: ignore[attr-defined]  # every StoredNoun has one, of its own type
    return body.described()


def _sealed(kept: StoredNoun | StoredAccount) -> object:
    if isinstance(kept, StoredAccount):
        return kept.sealed
    return kept.body.sealed_headers if isinstance(kept, StoredProvider) else None


Bodies = (
    Mapping[str, StoredProvider]
    | Mapping[str, StoredAlias]
    | Mapping[str, StoredModel]
    | Mapping[str, StoredTenant]
    | Mapping[str, StoredGroup]
    | Mapping[str, StoredPrompt]
)


async def _save_bodies(
    engine: AsyncEngine, connection: AsyncConnection, table: Table, before: Bodies, after: Bodies
) -> None:
    await _delete(connection, table, before, after)
    key = table.primary_key.columns.keys()[0]
    for name, kept in after.items():
        if before.get(name) != kept:
            times = {"created_at": kept.created_at, "updated_at": kept.updated_at}
            await _upsert(engine, connection, table, {key: name, "body": kept.body.to_store(), **times})


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
