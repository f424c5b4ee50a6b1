"""Users of the admin API in the store: made, listed, changed, removed, and found by their credentials.

Owns the table ``users``.  Each change writes its row of the audit log in the same transaction.  The password's hash
leaves this room for no answer and no log.  Refusals are GatewayErrors with a sentence.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Row, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.catalog.words import Role
from headgate.control.audit.chain import Actor, Change, changed_secret, changing, record
from headgate.control.identity.passwords import Passwords
from headgate.control.refusals import ALREADY_EXISTS, TOO_MANY, USER_NOT_FOUND
from headgate.control.store.access_tables import sessions, users
from headgate.errors import GatewayError

MAX_USERS = 10_000


@dataclass(frozen=True, slots=True)
class User:
    """``password``: its hash, None for users of the OIDC provider.  Instants are Unix ns."""

    id: str
    name: str
    role: Role
    email: str | None = None
    tenant: str | None = None
    disabled: bool = False
    password: str | None = field(default=None, repr=False)
    issuer: str | None = None
    subject: str | None = None
    created_at: int = 0
    last_login_at: int | None = None


def described(user: User) -> dict[str, Any]:
    """A user as the audit log shows it."""
    shown = {name: getattr(user, name) for name in ("name", "email", "role", "tenant", "disabled", "issuer")}
    return {name: value for name, value in shown.items() if value is not None}


async def create(engine: AsyncEngine, user: User, actor: Actor | None = None) -> User:
    """Stores a new user under a fresh id.  Raises GatewayError (its name or e-mail is taken), SQLAlchemyError."""
    user = replace(user, id=secrets.token_hex(6), created_at=time.time_ns())
    try:
        async with changing(engine) as connection:
            if len((await connection.execute(select(users.c.id).limit(MAX_USERS))).all()) >= MAX_USERS:
                raise GatewayError(TOO_MANY, f"There are {MAX_USERS} users, which is the limit; remove some first.")
            await connection.execute(insert(users).values(**_columns(user)))
            await record(connection, Change("user", user.id, "created", None, described(user)), actor=actor)
    except IntegrityError as error:
        raise _taken(user) from error
    return user


async def edit(engine: AsyncEngine, ident: str, changes: Mapping[str, Any], actor: Actor | None = None) -> User:
    """Changes fields of a user.  A disabled user's sessions end.  Raises GatewayError, SQLAlchemyError."""
    wanted: User | None = None
    try:
        async with changing(engine) as connection:
            row = (await connection.execute(select(users).where(users.c.id == ident))).first()
            if row is None:
                raise GatewayError(USER_NOT_FOUND, f"There is no user {ident!r}.")
            before = read(row)
            wanted = replace(before, **changes)
            if wanted == before:
                return before
            await connection.execute(update(users).where(users.c.id == ident).values(**_columns(wanted)))
            if wanted.disabled:
                await connection.execute(delete(sessions).where(sessions.c.user_id == ident))
            change = Change("user", ident, "changed", described(before), described(wanted))
            await record(connection, change, actor=actor)
    except IntegrityError as error:
        assert wanted is not None
        raise _taken(wanted) from error
    return wanted


async def set_password(engine: AsyncEngine, ident: str, hashed: str, session: str | None = None) -> None:
    """Another password.  All sessions of the user end but ``session``.  Raises SQLAlchemyError."""
    async with changing(engine) as connection:
        await connection.execute(update(users).where(users.c.id == ident).values(password=hashed))
        ended = delete(sessions).where(sessions.c.user_id == ident)
        await connection.execute(ended if session is None else ended.where(sessions.c.id != session))
        await record(connection, Change("user", ident, "password_changed", None, changed_secret({})))


async def remove(engine: AsyncEngine, user: User) -> None:
    """Removes a user with all sessions.  Raises SQLAlchemyError."""
    async with changing(engine) as connection:
        await connection.execute(delete(sessions).where(sessions.c.user_id == user.id))
        await connection.execute(delete(users).where(users.c.id == user.id))
        await record(connection, Change("user", user.id, "deleted", described(user)))


async def listed(engine: AsyncEngine) -> Sequence[User]:
    """Every user, by name.  Raises SQLAlchemyError."""
    async with engine.connect() as connection:
        return [read(row) for row in await connection.execute(select(users).order_by(users.c.name_key))]


async def named(engine: AsyncEngine, wanted: str) -> User:
    """The user with this id, name or e-mail.  Raises GatewayError (404), SQLAlchemyError."""
    found = await _first(engine, or_(users.c.id == wanted, *_called(wanted)))
    if found is None:
        raise GatewayError(USER_NOT_FOUND, f"There is no user {wanted!r}.")
    return found


async def of_subject(engine: AsyncEngine, issuer: str, subject: str) -> User | None:
    """The user that an OIDC provider knows by this subject.  Raises SQLAlchemyError."""
    return await _first(engine, (users.c.issuer == issuer) & (users.c.subject == subject))


async def authenticated(engine: AsyncEngine, passwords: Passwords, name: str, password: str) -> User | None:
    """The user with this name or e-mail and this password.  An unknown name, a disabled user and one without a password
    take as long as a wrong password.  Raises SQLAlchemyError.
    """
    user = await _first(engine, or_(*_called(name)))
    usable = user is not None and not user.disabled
    if not await passwords.matches(user.password if user and usable else None, password):
        return None
    assert user is not None and user.password is not None
    if passwords.outdated(user.password):
        fresh = await passwords.hashed(password)
        async with engine.begin() as connection:
            await connection.execute(update(users).where(users.c.id == user.id).values(password=fresh))
    return user


def read(row: Row[Any]) -> User:
    """The user of a row of the table."""
    values = {name: getattr(row, name) for name in User.__slots__}
    return User(**{**values, "disabled": bool(row.disabled)})


def _called(name: str) -> list[Any]:
    key = name.casefold()
    return [users.c.name_key == key, users.c.email_key == key]


async def _first(engine: AsyncEngine, condition: Any) -> User | None:
    async with engine.connect() as connection:
        row = (await connection.execute(select(users).where(condition))).first()
        return None if row is None else read(row)


def _columns(user: User) -> dict[str, Any]:
    values = {name: getattr(user, name) for name in User.__slots__}
    return {**values, "name_key": user.name.casefold(), "email_key": user.email and user.email.casefold()}


def _taken(user: User) -> GatewayError:
    also = f" or the e-mail {user.email}" if user.email else ""
    return GatewayError(ALREADY_EXISTS, f"Another user has the name {user.name}{also} already.", param="name")
