"""/admin/v1/login, logout, me, sessions: the way in for people, and what they may do with their own account."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Path, Request, Response

from headgate.catalog.words import Role
from headgate.control.api.access.callers import Caller, address_of, set_cookie
from headgate.control.api.errors import documented
from headgate.control.api.parts import Admin
from headgate.control.api.routers import open_router, router
from headgate.control.api.views import Page, View, seconds
from headgate.control.identity import sessions, users
from headgate.control.identity.passwords import Passwords
from headgate.control.identity.roles import Principal
from headgate.control.identity.sessions import LoginSession, csrf_token
from headgate.control.identity.throttle import LoginThrottle
from headgate.control.identity.users import User
from headgate.control.refusals import NO_SESSION, SESSION_NOT_FOUND, TOO_MANY_LOGINS, WRONG_LOGIN
from headgate.errors import GatewayError
from headgate.resources.fields import Text
from headgate.resources.user import Credentials, LogoutWish, PasswordChange

log = structlog.get_logger("headgate.api")

SessionIdent = Annotated[Text, Path(description="The session's id, as GET /sessions lists it.")]


@dataclass(frozen=True, slots=True)
class Guard:
    """What proves passwords, and how often logins may be tried.  One per application."""

    passwords: Passwords = field(default_factory=Passwords)
    throttle: LoginThrottle = field(default_factory=LoginThrottle)

    def count(self, name: str | None, address: str) -> None:
        """Count a try.  Raises GatewayError (429)."""
        wait = self.throttle.wait(name, address, time.monotonic())
        if wait > 0:
            raise GatewayError(TOO_MANY_LOGINS, "Too many logins were tried; wait a little.", retry_after=wait)

    async def proven(self, admin: Admin, name: str, password: str, address: str) -> User:
        """The user with this password.  Raises GatewayError (401, 429), SQLAlchemyError."""
        self.count(name, address)
        user = await users.authenticated(admin.engine, self.passwords, name, password)
        if user is None:
            log.warning("a login was refused", address=address)  # the name may be a password in the wrong field
            raise GatewayError(WRONG_LOGIN, "The name or the password is wrong.")
        self.throttle.give_back(name, address)
        return user


class MeView(View):
    """``session`` and ``csrf_token`` are null for the admin token.  A change that is made with a session repeats the
    latter in the header `X-CSRF-Token`.
    """

    object: Literal["headgate.me"] = "headgate.me"
    name: str
    role: Role
    tenant: str | None
    user: str | None
    session: str | None
    csrf_token: str | None


class SessionView(View):
    """``id`` ends the session and opens nothing.  ``current``: the one of this request.  Instants are Unix seconds."""

    object: Literal["headgate.session"] = "headgate.session"
    id: str
    user: str
    address: str
    agent: str
    created: int | None
    seen: int | None
    expires: int | None
    current: bool


class EndedSessions(View):
    object: Literal["headgate.session.ended"] = "headgate.session.ended"
    ended: int


class PasswordChanged(View):
    """Every other session of the user has ended."""

    object: Literal["headgate.password.changed"] = "headgate.password.changed"
    user: str


def public_routes(admin: Admin, guard: Guard) -> APIRouter:
    """The one route that needs no credential."""
    api = open_router("access")

    @api.post("/login", responses=documented(401, 429))
    async def login(request: Request, response: Response, wish: Credentials) -> MeView:
        """Opens a session for a user: the answer sets its cookie.  An unknown name and a wrong password are answered
        alike.
        """
        address = address_of(request.scope)
        user = await guard.proven(admin, wish.name, wish.password.get_secret_value(), address)
        return await opened(admin, user, request, response)

    return api


async def opened(admin: Admin, user: User, request: Request, response: Response) -> MeView:
    """A new session of this user, and its cookie on ``response``.  Raises SQLAlchemyError."""
    address = address_of(request.scope)
    secret, session = await sessions.start(admin.engine, user, address, request.headers.get("user-agent", ""))
    set_cookie(request, response, secret)
    return MeView(
        name=user.name, role=user.role, tenant=user.tenant, user=user.id, session=session.id,
        csrf_token=csrf_token(secret),
    )  # fmt: skip


def routes(admin: Admin, guard: Guard) -> APIRouter:
    """The routes of those who are in."""
    api = router("access")

    @api.get("/me")
    async def get_me(caller: Caller) -> MeView:
        """The caller: a user with a session, or the holder of the admin token."""
        return MeView.of(caller, user=caller.user_id, csrf_token=caller.csrf)

    @api.post("/logout", responses=documented(409))
    async def logout(
        request: Request, response: Response, caller: Caller, wish: LogoutWish | None = None
    ) -> EndedSessions:
        """Ends this session, or all sessions of its user."""
        user, session = _own(caller)
        ended = 1
        if wish is not None and wish.everywhere:
            ended = await sessions.end_all(admin.engine, user)
        else:
            await sessions.end(admin.engine, session)
        set_cookie(request, response, "")
        return EndedSessions(ended=ended)

    @api.post("/me/password", responses=documented(409, 429))
    async def change_password(request: Request, caller: Caller, wish: PasswordChange) -> PasswordChanged:
        """Changes the caller's own password.  The caller's other sessions end."""
        user, session = _own(caller)
        current = wish.current.get_secret_value()
        await guard.proven(admin, caller.name, current, address_of(request.scope))
        hashed = await guard.passwords.hashed(wish.password.get_secret_value())
        await users.set_password(admin.engine, user, hashed, session)
        return PasswordChanged(user=user)

    @api.get("/sessions")
    async def list_sessions(caller: Caller) -> Page[SessionView]:
        """The caller's own sessions; an admin sees everybody's."""
        names = {user.id: user.name for user in await users.listed(admin.engine)}
        return Page(data=[_view(one, names, caller) for one in await _visible(admin, caller)])

    @api.delete("/sessions/{ident}", responses=documented(404))
    async def end_session(ident: SessionIdent, caller: Caller) -> EndedSessions:
        """Ends a session: one of the caller's own; an admin ends any."""
        if not any(one.id == ident for one in await _visible(admin, caller)):
            raise GatewayError(SESSION_NOT_FOUND, f"There is no session {ident!r}.")
        await sessions.end(admin.engine, ident)
        return EndedSessions(ended=1)

    return api


def _own(caller: Principal) -> tuple[str, str]:
    if caller.user_id is None or caller.session is None:
        raise GatewayError(NO_SESSION, "The admin token is no user: it has no session and no password.")
    return caller.user_id, caller.session


async def _visible(admin: Admin, caller: Principal) -> list[LoginSession]:
    if caller.role != "admin" and caller.user_id is None:
        return []
    return list(await sessions.listed(admin.engine, None if caller.role == "admin" else caller.user_id))


def _view(session: LoginSession, names: dict[str, str], caller: Principal) -> SessionView:
    return SessionView.of(
        session,
        user=names.get(session.user_id, session.user_id),
        created=seconds(session.created_at),
        seen=seconds(session.seen_at),
        expires=seconds(session.expires_at),
        current=session.id == caller.session,
    )
