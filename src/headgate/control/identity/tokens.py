"""Agent tokens in the store: made, listed, changed, rotated, revoked.

Owns the tables ``tokens`` and ``superseded_tokens``.  A token is returned once, by ``create`` or ``rotate``; the store
has its digest only.  A revoked token keeps its row, so that receipts still have a name to show; a rotated one keeps its
id, so that its use stays together.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import msgspec
from sqlalchemy import Row, Select, and_, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.audit.chain import Change, changed_secret, changing, record
from headgate.control.store.database import superseded_tokens, tokens
from headgate.model import NO_LIMITS, Budget, CallLimits, Grant
from headgate.policy.auth import digest
from headgate.process.credentials import fresh_id, mint, public_id

FIRST = "first"  # the name of the token that the first start makes
ATTEMPTS = 5  # at minting an id that is not taken: eight hex digits collide once in a while

_TERMS = ("limits", "budget", "over_budget", "free_only", "priced_only", "run", "tier", "tiers")  # of a Grant


class StoredTerms(msgspec.Struct, frozen=True, omit_defaults=True):
    """The column ``terms``: the fields ``_TERMS`` of a Grant, and the form of its token (``words.TokenFormat``)."""

    limits: CallLimits = NO_LIMITS
    budget: Budget | None = None
    over_budget: str = ""
    free_only: bool = False
    priced_only: bool = False
    run: str = ""
    tier: str = ""
    tiers: tuple[str, ...] = ()
    form: str = "pat"


_terms = msgspec.json.Decoder(StoredTerms)
_strings = msgspec.json.Decoder(tuple[str, ...])


@dataclass(frozen=True, slots=True)
class Minted:
    """A token that has just been made.  ``token`` is shown once and must not be kept."""

    grant: Grant
    digest: bytes
    token: str
    created_at: int

    def __repr__(self) -> str:  # a log line or a traceback must not print tokens
        return f"Minted({self.grant.id})"


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of the table.  Instants are Unix ns; ``form``: see ``StoredTerms``."""

    grant: Grant
    digest: bytes
    created_at: int
    revoked_at: int | None
    form: str = "pat"


async def create(engine: AsyncEngine, key: bytes, wish: Grant, form: str = "pat") -> Minted:
    """A new token that may do what ``wish`` says, under a fresh id.  Raises SQLAlchemyError."""
    for _attempt in range(ATTEMPTS):
        ident = fresh_id()
        try:
            grant = msgspec.structs.replace(wish, id=ident, origin="store")
            return await insert_token(engine, key, mint(ident, form), grant, form)
        except IntegrityError:
            continue
    raise RuntimeError("no free token id was found; is the random source broken?")


async def insert_token(engine: AsyncEngine, key: bytes, token: str, grant: Grant, form: str = "pat") -> Minted:
    """Stores the digest of a token that exists already.  Raises IntegrityError where its id or digest is taken."""
    minted = Minted(grant, digest(key, token.encode()), token, time.time_ns())
    async with changing(engine) as connection:
        await connection.execute(
            insert(tokens).values(
                id=grant.id,
                digest=minted.digest,
                created_at=minted.created_at,
                parent=grant.parent,
                **_columns(grant, form),
            )
        )
        await record(connection, Change("token", grant.id, "created", None, described(grant)))
    return minted


def described(grant: Grant) -> dict[str, Any]:
    """A token as the audit log shows it."""
    shown: dict[str, Any] = msgspec.to_builtins(grant)
    return {name: value for name, value in shown.items() if name not in ("id", "origin")}


def _columns(grant: Grant, form: str) -> dict[str, object]:
    terms = StoredTerms(**{name: getattr(grant, name) for name in _TERMS}, form=form)
    return {
        "tenant": grant.tenant,
        "terms": msgspec.json.encode(terms).decode(),
        "name": grant.name,
        "scopes": msgspec.json.encode(grant.scopes).decode(),
        "models": msgspec.json.encode(grant.models).decode(),
        "expires": grant.expires,
    }


async def adopt_first(engine: AsyncEngine, key: bytes, token: str) -> None:
    """Stores the first start's token, unless it is there.

    Names in use are unique: where another one is called so, it is ``first-2`` and so on.
    """
    async with engine.connect() as connection:
        found = await connection.execute(select(tokens.c.id).where(tokens.c.digest == digest(key, token.encode())))
        if found.first() is not None:
            return
        used = await connection.execute(select(tokens.c.name).where(tokens.c.revoked_at.is_(None)))
        taken = set(used.scalars())
    name = next(one for one in chain([FIRST], (f"{FIRST}-{number}" for number in count(2))) if one not in taken)
    await insert_token(engine, key, token, Grant(id=public_id(token) or fresh_id(), name=name, origin="store"))


def _in_order() -> Select[tuple[object, ...]]:
    return select(tokens).order_by(tokens.c.created_at, tokens.c.id)


def _stored(row: Row[tuple[object, ...]]) -> Stored:
    terms = _terms.decode(row.terms)
    return Stored(
        grant=Grant(
            id=row.id,
            name=row.name,
            scopes=_strings.decode(row.scopes),
            models=_strings.decode(row.models),
            expires=row.expires,
            origin="store",
            tenant=row.tenant,
            parent=row.parent,
            **{name: getattr(terms, name) for name in _TERMS},
        ),
        digest=bytes(row.digest),
        created_at=row.created_at,
        revoked_at=row.revoked_at,
        form=terms.form,
    )


async def page(
    engine: AsyncEngine,
    limit: int,
    after: tuple[int, str] | None = None,
    include_revoked: bool = False,
    tenant: str | None = None,
) -> list[Stored]:
    """At most ``limit`` tokens, oldest first, from behind ``after``: the last one's (created_at, id).  ``tenant``: only
    this tenant's.
    """
    query = _in_order().limit(limit)
    if not include_revoked:
        query = query.where(tokens.c.revoked_at.is_(None))
    if tenant is not None:
        query = query.where(tokens.c.tenant == tenant)
    if after is not None:
        at, ident = after
        query = query.where(or_(tokens.c.created_at > at, and_(tokens.c.created_at == at, tokens.c.id > ident)))
    async with engine.connect() as connection:
        return [_stored(row) for row in await connection.execute(query)]


async def one(engine: AsyncEngine, ident: str) -> Stored | None:
    """The token with this id, a revoked one too."""
    async with engine.connect() as connection:
        row = (await connection.execute(select(tokens).where(tokens.c.id == ident))).first()
        return None if row is None else _stored(row)


async def revoked_id(engine: AsyncEngine, wanted: str, tenant: str | None = None) -> str | None:
    """The id of the revoked token with this id or name, of several the last that was revoked; None: there is none.
    ``tenant``: only this tenant's.
    """
    query = select(tokens.c.id).where(
        or_(tokens.c.id == wanted, tokens.c.name == wanted), tokens.c.revoked_at.is_not(None)
    )
    if tenant is not None:
        query = query.where(tokens.c.tenant == tenant)
    async with engine.connect() as connection:
        found = await connection.execute(query.order_by(tokens.c.revoked_at.desc()).limit(1))
        return found.scalar()


async def grants(engine: AsyncEngine, ident: str | None = None) -> Mapping[bytes, Grant]:
    """The tokens that are good, by digest; where ``ident`` is given, this one and its children.  Expired ones are among
    them: the data plane says so to their holders.

    A rotated token's former secret is good until its own end: the same Grant, expiring then.
    """
    async with engine.connect() as connection:
        good, former = _in_order().where(tokens.c.revoked_at.is_(None)), select(superseded_tokens)
        if ident is not None:
            good = good.where(or_(tokens.c.id == ident, tokens.c.parent == ident))
        rows = await connection.execute(good)
        found = {entry.digest: entry.grant for entry in map(_stored, rows)}
        by_id = {grant.id: grant for grant in found.values()}
        for row in await connection.execute(former.where(superseded_tokens.c.until > time.time())):
            if grant := by_id.get(row.token_id):
                found[bytes(row.digest)] = ending(grant, row.until)
    return found


def ending(grant: Grant, until: float) -> Grant:
    """The grant as a superseded secret has it."""
    ends = until if grant.expires is None else min(until, grant.expires)
    return msgspec.structs.replace(grant, expires=ends)


async def edit(engine: AsyncEngine, grant: Grant, form: str) -> bool:
    """Writes what a token may do.  False where no good token has its id."""
    async with changing(engine) as connection:
        row = (await connection.execute(select(tokens).where(tokens.c.id == grant.id))).first()
        if row is None or row.revoked_at is not None:
            return False
        await connection.execute(update(tokens).where(tokens.c.id == grant.id).values(**_columns(grant, form)))
        if row.tenant != grant.tenant:  # its children go with it
            await connection.execute(update(tokens).where(tokens.c.parent == grant.id).values(tenant=grant.tenant))
        before = described(_stored(row).grant)
        await record(connection, Change("token", grant.id, "changed", before, described(grant)))
    return True


async def rotate(engine: AsyncEngine, key: bytes, entry: Stored, overlap_s: float) -> tuple[Minted, float | None]:
    """A new secret for the same grant; until when the former one is good beside it (Unix seconds), None: no longer.

    Secrets that an earlier rotation left good keep their own end, unless there is no overlap: then they end too.
    """
    grant = entry.grant
    token = mint(grant.id, entry.form)
    minted = Minted(grant, digest(key, token.encode()), token, entry.created_at)
    now = time.time()
    until = now + overlap_s if overlap_s else None
    async with changing(engine) as connection:
        gone = superseded_tokens.c.until <= now
        if until is None:
            gone = or_(gone, superseded_tokens.c.token_id == grant.id)
        await connection.execute(delete(superseded_tokens).where(gone))
        if until is not None:
            await connection.execute(
                insert(superseded_tokens).values(digest=entry.digest, token_id=grant.id, until=until)
            )
        await connection.execute(update(tokens).where(tokens.c.id == grant.id).values(digest=minted.digest))
        after = changed_secret({"former_valid_until": until})
        await record(connection, Change("token", grant.id, "rotated", None, after))
    return minted, until


async def revoke(engine: AsyncEngine, ident: str) -> bool:
    """Marks a token as revoked, with all its secrets and its children.  False where there is none with this id that is
    good.
    """
    good, now = tokens.c.revoked_at.is_(None), time.time_ns()
    async with changing(engine) as connection:
        result = await connection.execute(update(tokens).where(tokens.c.id == ident, good).values(revoked_at=now))
        if result.rowcount:
            await connection.execute(update(tokens).where(tokens.c.parent == ident, good).values(revoked_at=now))
        await connection.execute(delete(superseded_tokens).where(superseded_tokens.c.token_id == ident))
        if result.rowcount == 1:
            await record(connection, Change("token", ident, "revoked"))
    return result.rowcount == 1


async def children(engine: AsyncEngine, parent: str) -> list[Stored]:
    """The children of a token that were not revoked, oldest first; expired ones too."""
    query = _in_order().where(tokens.c.parent == parent, tokens.c.revoked_at.is_(None))
    async with engine.connect() as connection:
        return [_stored(row) for row in await connection.execute(query)]
