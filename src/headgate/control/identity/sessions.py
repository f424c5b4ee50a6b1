"""Sessions of users in browsers: started, found by their secret, ended.

Owns the table ``sessions``.  A session's secret is in the browser's cookie and, as its SHA-256, in the store.  It ends
IDLE_S after its last use and MAX_S after the login, whichever comes first.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.catalog.money import NANO
from headgate.control.audit.chain import Actor, Change, changing, record
from headgate.control.identity import users as user_table
from headgate.control.identity.users import User
from headgate.control.store.access_tables import sessions, users

IDLE_S = 7_200
MAX_S = 86_400
SEEN_EACH_S = 60  # the last use is written no more often
MAX_AGENT = 200  # characters


@dataclass(frozen=True, slots=True)
class LoginSession:
    """``id`` is public: it ends the session, and opens nothing.  Instants are Unix ns."""

    id: str
    user_id: str
    address: str
    agent: str
    created_at: int
    seen_at: int
    expires_at: int


async def start(engine: AsyncEngine, user: User, address: str, agent: str) -> tuple[str, LoginSession]:
    """A new session's secret, which is kept nowhere else, and the session.  Raises SQLAlchemyError."""
    secret, now = secrets.token_urlsafe(32), time.time_ns()
    found = LoginSession(secrets.token_hex(6), user.id, address, agent[:MAX_AGENT], now, now, now + MAX_S * NANO)
    async with changing(engine) as connection:
        await connection.execute(delete(sessions).where(_over(now)))
        values = {name: getattr(found, name) for name in LoginSession.__slots__}
        await connection.execute(insert(sessions).values(digest=_digest(secret), **values))
        await connection.execute(update(users).where(users.c.id == user.id).values(last_login_at=now))
        actor = Actor("user", user.name, found.id, address)
        await record(connection, Change("session", found.id, "created", None, {"user": user.name}), actor=actor)
    return secret, found


async def of_secret(engine: AsyncEngine, secret: str) -> tuple[LoginSession, User] | None:
    """The session with this secret and its user; None where it has ended or the user is disabled.  Counts as a use.
    Raises SQLAlchemyError.
    """
    now = time.time_ns()
    digest = _digest(secret)
    async with engine.connect() as connection:
        row = (await connection.execute(select(sessions).where(sessions.c.digest == digest, ~_over(now)))).first()
        if row is None:
            return None
        owner = (await connection.execute(select(users).where(users.c.id == row.user_id))).first()
        if owner is None or owner.disabled:
            return None
        found, user = _read(row), user_table.read(owner)
    if now - found.seen_at > SEEN_EACH_S * NANO:
        async with engine.begin() as connection:
            await connection.execute(update(sessions).where(sessions.c.digest == digest).values(seen_at=now))
    return found, user


async def listed(engine: AsyncEngine, user_id: str | None = None) -> Sequence[LoginSession]:
    """The sessions that are good, the last used first; of one user where it is given.  Raises SQLAlchemyError."""
    query = select(sessions).where(~_over(time.time_ns())).order_by(sessions.c.seen_at.desc(), sessions.c.id)
    if user_id is not None:
        query = query.where(sessions.c.user_id == user_id)
    async with engine.connect() as connection:
        return [_read(row) for row in await connection.execute(query)]


async def end(engine: AsyncEngine, ident: str) -> None:
    """Ends the session with this public id.  Raises SQLAlchemyError."""
    await _end(engine, sessions.c.id == ident)


async def end_all(engine: AsyncEngine, user_id: str, actor: Actor | None = None) -> int:
    """Ends every session of a user; returns how many there were.  Raises SQLAlchemyError."""
    return await _end(engine, sessions.c.user_id == user_id, actor)


async def _end(engine: AsyncEngine, condition: Any, actor: Actor | None = None) -> int:
    async with changing(engine) as connection:
        ended = (await connection.execute(select(sessions.c.id).where(condition))).scalars().all()
        await connection.execute(delete(sessions).where(condition))
        await record(connection, *(Change("session", ident, "ended") for ident in ended), actor=actor)
    return len(ended)


def csrf_token(secret: str) -> str:
    """The value that changes made with this session repeat in a header: no other page can know it."""
    digest = hmac.digest(secret.encode(), b"headgate csrf", "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _over(now: int) -> Any:
    return or_(sessions.c.expires_at <= now, sessions.c.seen_at <= now - IDLE_S * NANO)


def _read(row: Row[Any]) -> LoginSession:
    return LoginSession(*(getattr(row, name) for name in LoginSession.__slots__))
