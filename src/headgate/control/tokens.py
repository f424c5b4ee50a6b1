"""Agent tokens in the store: made, listed, revoked.

Owns the ``tokens`` table.  A token is returned once, by ``create``; the store has its digest only.  A revoked token
keeps its row, so that receipts still have a name to show.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.keys import mint, public_id
from headgate.control.store import tokens
from headgate.model import Grant
from headgate.policy.auth import digest

ATTEMPTS = 5  # at minting an id that is not taken: eight hex digits collide once in a while

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
    """A row of the table.  Instants are Unix ns."""

    grant: Grant
    digest: bytes
    created_at: int
    revoked_at: int | None


async def create(engine: AsyncEngine, key: bytes, wish: Grant) -> Minted:
    """A new token with ``wish``'s name, scopes, models and expiry, under a fresh id.  Raises SQLAlchemyError."""
    for _attempt in range(ATTEMPTS):
        ident, token = mint()
        try:
            return await insert_token(engine, key, token, msgspec.structs.replace(wish, id=ident, origin="store"))
        except IntegrityError:
            continue
    raise RuntimeError("no free token id was found; is the random source broken?")


async def insert_token(engine: AsyncEngine, key: bytes, token: str, grant: Grant) -> Minted:
    """Stores the digest of a token that exists already.  Raises IntegrityError where its id or digest is taken."""
    minted = Minted(grant, digest(key, token.encode()), token, time.time_ns())
    async with engine.begin() as connection:
        await connection.execute(
            insert(tokens).values(
                id=grant.id,
                digest=minted.digest,
                name=grant.name,
                scopes=msgspec.json.encode(grant.scopes).decode(),
                models=msgspec.json.encode(grant.models).decode(),
                created_at=minted.created_at,
                expires=grant.expires,
            )
        )
    return minted


async def adopt_first(engine: AsyncEngine, key: bytes, token: str) -> None:
    """Stores the token that the supervisor printed on the first start, unless it is there."""
    async with engine.connect() as connection:
        found = await connection.execute(select(tokens.c.id).where(tokens.c.digest == digest(key, token.encode())))
        if found.first() is not None:
            return
    await insert_token(engine, key, token, Grant(id=public_id(token) or mint()[0], name="first", origin="store"))


async def stored(engine: AsyncEngine) -> list[Stored]:
    """Every token, revoked ones too, oldest first."""
    async with engine.connect() as connection:
        rows = await connection.execute(select(tokens).order_by(tokens.c.created_at, tokens.c.id))
        return [
            Stored(
                grant=Grant(
                    id=row.id,
                    name=row.name,
                    scopes=_strings.decode(row.scopes),
                    models=_strings.decode(row.models),
                    expires=row.expires,
                    origin="store",
                ),
                digest=bytes(row.digest),
                created_at=row.created_at,
                revoked_at=row.revoked_at,
            )
            for row in rows
        ]


async def grants(engine: AsyncEngine) -> Mapping[bytes, Grant]:
    """The tokens that are good, by digest.  Expired ones are among them: the data plane says so to their holders."""
    return {entry.digest: entry.grant for entry in await stored(engine) if entry.revoked_at is None}


async def revoke(engine: AsyncEngine, ident: str) -> bool:
    """Marks a token as revoked.  False where there is none with this id that is good."""
    async with engine.begin() as connection:
        result = await connection.execute(
            update(tokens).where(tokens.c.id == ident, tokens.c.revoked_at.is_(None)).values(revoked_at=time.time_ns())
        )
    return result.rowcount == 1
