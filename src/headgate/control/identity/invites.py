"""Invites in the store: links with which others put a key into the vault, and take it out again.

Owns the table ``invites``.  A link is good once, for 72 hours.  Its secret is returned once: the store has a digest
under the instance key, so that a reader of the store can make no link.  The link that removes the key has a secret of
its own.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from dataclasses import dataclass

from sqlalchemy import Row, and_, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.catalog.money import NANO
from headgate.control.audit.chain import Change, changing, record
from headgate.control.store.vault_tables import invites
from headgate.policy.auth import digest
from headgate.process.credentials import fresh_id

LIFE_NS = 72 * 3600 * NANO
ENTER, WITHDRAW = "hgi", "hgw"  # what a link is for
_TOKEN = re.compile(r"(hgi|hgw)_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Invite:
    """A row of the table.  Instants are Unix ns.  ``account``: the id that its key has, and when it was made."""

    id: str
    provider: str
    label: str
    note: str
    created_at: int
    expires_at: int
    used_at: int | None = None
    revoked_at: int | None = None
    withdrawn_at: int | None = None
    account: str | None = None
    account_at: int | None = None

    def state(self, now: int) -> str:
        """``open``, ``used``, ``withdrawn``, ``revoked`` or ``expired``."""
        if self.withdrawn_at is not None:
            return "withdrawn"
        if self.used_at is not None:
            return "used"
        if self.revoked_at is not None:
            return "revoked"
        return "open" if now < self.expires_at else "expired"


async def create(engine: AsyncEngine, key: bytes, provider: str, label: str | None, note: str) -> tuple[Invite, str]:
    """A new invite, and the token of its link.  Without ``label`` the account is called after the invite."""
    ident, now = fresh_id(), time.time_ns()
    token = _minted(ENTER, ident)
    invite = Invite(ident, provider, label or f"invite-{ident}", note, now, now + LIFE_NS)
    values = {name: getattr(invite, name) for name in ("id", "provider", "label", "note", "created_at", "expires_at")}
    async with changing(engine) as connection:
        await connection.execute(insert(invites).values(**values, digest=_digest(key, token)))
        after = {"provider": provider, "label": invite.label}
        await record(connection, Change("invite", ident, "created", None, after))
    return invite, token


async def every(engine: AsyncEngine) -> list[Invite]:
    """The invites, the newest first."""
    async with engine.connect() as connection:
        rows = await connection.execute(select(invites).order_by(invites.c.created_at.desc(), invites.c.id))
        return [_invite(row) for row in rows]


async def of_token(engine: AsyncEngine, key: bytes, token: str, purpose: str) -> Invite | None:
    """The invite that a link's token belongs to.  Digests are compared in constant time."""
    match = _TOKEN.fullmatch(token)
    async with engine.connect() as connection:
        ident = match[2] if match else ""
        row = (await connection.execute(select(invites).where(invites.c.id == ident))).first()
    kept = bytes((row.digest if purpose == ENTER else row.withdrawal) or b"") if row else b""
    good = hmac.compare_digest(kept, _digest(key, token))
    return _invite(row) if row is not None and match is not None and match[1] == purpose and good else None


async def take(engine: AsyncEngine, ident: str) -> bool:
    """Uses an invite.  False where it was used, revoked or has expired: of two at a time one succeeds."""
    now = time.time_ns()
    still = and_(invites.c.used_at.is_(None), invites.c.revoked_at.is_(None), invites.c.expires_at > now)
    async with changing(engine) as connection:
        done = await connection.execute(update(invites).where(invites.c.id == ident, still).values(used_at=now))
        await record(connection, *[Change("invite", ident, "used")] * done.rowcount)
    return done.rowcount == 1


async def give_back(engine: AsyncEngine, ident: str) -> None:
    """The key could not be stored: the link is good again."""
    async with changing(engine) as connection:
        await connection.execute(update(invites).where(invites.c.id == ident).values(used_at=None))
        await record(connection, Change("invite", ident, "given_back"))


async def settle(engine: AsyncEngine, key: bytes, ident: str, account: str, account_at: int) -> str:
    """Its key is stored: the token of the link that removes it."""
    token = _minted(WITHDRAW, ident)
    values = {"account": account, "account_at": account_at, "withdrawal": _digest(key, token)}
    async with engine.begin() as connection:
        await connection.execute(update(invites).where(invites.c.id == ident).values(values))
    return token


async def withdraw(engine: AsyncEngine, ident: str) -> bool:
    """Its key is taken out.  False where it was before."""
    still = and_(invites.c.id == ident, invites.c.withdrawn_at.is_(None))
    async with changing(engine) as connection:
        done = await connection.execute(update(invites).where(still).values(withdrawn_at=time.time_ns()))
        await record(connection, *[Change("invite", ident, "withdrawn")] * done.rowcount)
    return done.rowcount == 1


async def revoke(engine: AsyncEngine, ident: str) -> bool:
    """Ends an unused link.  False where there is none."""
    still = and_(invites.c.id == ident, invites.c.used_at.is_(None), invites.c.revoked_at.is_(None))
    async with changing(engine) as connection:
        done = await connection.execute(update(invites).where(still).values(revoked_at=time.time_ns()))
        await record(connection, *[Change("invite", ident, "revoked")] * done.rowcount)
    return done.rowcount == 1


def _minted(purpose: str, ident: str) -> str:
    return f"{purpose}_{ident}_{secrets.token_urlsafe(32)}"


def _digest(key: bytes, token: str) -> bytes:
    return digest(key, b"invite\0" + token.encode())


def _invite(row: Row[tuple[object, ...]]) -> Invite:
    return Invite(**{name: getattr(row, name) for name in Invite.__dataclass_fields__})
