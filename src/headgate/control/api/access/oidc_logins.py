"""/admin/v1/oidc: the login with an OpenID Connect provider.  Pages for browsers, not in the API's description."""

from __future__ import annotations

from dataclasses import replace
from html import escape

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.api import docs
from headgate.control.api.access.callers import address_of, on_loopback
from headgate.control.api.access.logins import Guard, opened
from headgate.control.api.access.needs import PREFIX
from headgate.control.api.parts import Admin
from headgate.control.audit.chain import Actor
from headgate.control.identity import sessions, users
from headgate.control.identity.oidc import Oidc, OidcFailed, OidcUser
from headgate.control.identity.users import User
from headgate.control.refusals import ALREADY_EXISTS, OIDC_NOT_CONFIGURED
from headgate.errors import GatewayError

STATE_COOKIE = "headgate-oidc"
CALLBACK = f"{PREFIX}/oidc/callback"
TRIES = 20  # at a name that no other user has

log = structlog.get_logger("headgate.api")


def routes(admin: Admin, guard: Guard) -> APIRouter:
    """The routes, on these surroundings."""
    api = APIRouter(prefix=PREFIX, include_in_schema=False)
    oidc = Oidc(admin.access.oidc) if admin.access.oidc is not None else None

    def provider() -> Oidc:
        if oidc is None:
            raise GatewayError(OIDC_NOT_CONFIGURED, "No OIDC provider is configured (control.oidc).")
        return oidc

    @api.get("/oidc/login")
    async def begin_oidc(request: Request) -> Response:
        """Sends the browser to the provider."""
        guard.count(None, address_of(request.scope))
        try:
            url, state = await provider().begin(_redirect_uri(admin, request))
        except OidcFailed as failed:
            return _page(str(failed), 502)
        answer = RedirectResponse(url, 302, headers={"cache-control": "no-store"})
        secure = not on_loopback(dict(request.scope["headers"]))
        # Lax: the provider's redirect, which comes from another site, must bring it back
        answer.set_cookie(STATE_COOKIE, state, max_age=600, path=CALLBACK, secure=secure, httponly=True, samesite="lax")
        return answer

    @api.get("/oidc/callback")
    async def finish_oidc(request: Request) -> Response:
        """Where the provider sends the browser back to: opens the session."""
        browser_state = request.cookies.get(STATE_COOKIE, "")
        try:
            found = await provider().finish(dict(request.query_params), browser_state)
            user = await _known(admin.engine, found, address_of(request.scope))
        except OidcFailed as failed:
            return _page(str(failed), 401)
        answer = _page(f"You are logged in as {user.name} ({user.role.replace('_', ' ')}).", 200)
        await opened(admin, user, request, answer)
        guard.throttle.give_back(None, address_of(request.scope))
        answer.delete_cookie(STATE_COOKIE, path=CALLBACK)
        return answer

    return api


def _redirect_uri(admin: Admin, request: Request) -> str:
    if admin.access.public_url:
        return admin.access.public_url + CALLBACK
    scheme = "http" if on_loopback(dict(request.scope["headers"])) else "https"
    return f"{scheme}://{request.headers.get('host', '')}{CALLBACK}"


def _page(sentence: str, status: int) -> HTMLResponse:
    """A page, not a redirect: a browser would not send the new cookie (SameSite=Strict) along with one."""
    body = f'<!doctype html><meta charset="utf-8"><title>Headgate</title><p>{escape(sentence)}</p>'
    return HTMLResponse(body, status, headers={**docs.SAFE, "cache-control": "no-store"})


async def _known(engine: AsyncEngine, found: OidcUser, address: str) -> User:
    """The user of the store; made at the first login.  The provider decides on the role at each.  Raises OidcFailed."""
    actor = Actor("oidc", found.issuer, address=address)
    if found.role is None:
        await _end_sessions(engine, found, actor)
        raise OidcFailed("You have no role in this gateway; ask its admin for one.")
    granted = {"role": found.role, "tenant": found.tenant}
    wish = User("", found.name, found.role, found.email, found.tenant, issuer=found.issuer, subject=found.subject)
    for name in (found.name, *(f"{found.name}-{number}" for number in range(2, TRIES))):
        for email in dict.fromkeys((found.email, None)):  # another user may have it: two ways in are two users
            user = await users.of_subject(engine, found.issuer, found.subject)  # maybe made by another login just now
            if user is not None and user.disabled:
                raise OidcFailed("This user is disabled.")
            if user is not None:
                return await users.edit(engine, user.id, granted, actor)
            try:
                return await users.create(engine, replace(wish, name=name, email=email), actor)
            except GatewayError as refusal:
                if refusal.kind is not ALREADY_EXISTS:
                    raise
    raise OidcFailed("There are too many users of this name.")


async def _end_sessions(engine: AsyncEngine, found: OidcUser, actor: Actor) -> None:
    """Ends the sessions of a user who has lost its roles."""
    log.warning("an OIDC user has no role here", issuer=found.issuer, subject=found.subject)
    user = await users.of_subject(engine, found.issuer, found.subject)
    if user is not None:
        await sessions.end_all(engine, user.id, actor)
