"""The admin API's door: who may come in, for what, and how much they may bring.

ASGI middleware outside of the routes, so that no route can be left open by mistake: a request passes if the table of
``needs`` has its route and the caller's role is among those that the route needs.  OPEN_PATHS need no caller.  Says who
the caller is: to the routes (``callers.py``) and to the audit log.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Response
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headgate.control.api import docs
from headgate.control.api.access.callers import PRINCIPAL, address_of, cookie_of
from headgate.control.api.access.needs import PREFIX, NotServed, need_of
from headgate.control.api.errors import STORE_AWAY, not_served, rendered
from headgate.control.audit.chain import ACTOR, Actor
from headgate.control.identity import sessions
from headgate.control.identity.roles import ROLES, Need, Principal
from headgate.control.refusals import (
    CSRF_FAILED,
    FORBIDDEN,
    FOREIGN_ORIGIN,
    INVALID_ADMIN_TOKEN,
    INVALID_SESSION,
    MISSING_ADMIN_TOKEN,
)
from headgate.control.snapshot.contributors import PATH
from headgate.errors import CONTROL_AWAY, PAYLOAD_TOO_LARGE
from headgate.wire.urls import is_loopback

PROBES = frozenset({"/livez", "/readyz"})
OPEN_PATHS = PROBES | {docs.PAGE, docs.STYLE, "/openapi.json"}
MAX_BODY = 1 << 20
MAX_IMPORT = 16 << 20  # an export of as many keys, each as long, as a store takes
LARGE_BODIES = {f"POST {PREFIX}/vault/import": MAX_IMPORT}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER = b"x-csrf-token"
ADMIN_TOKEN = "admin token"  # as a caller's name


@dataclass(frozen=True)
class Hosts:
    """The names under which this API may be reached.  An attacker's page whose name leads to 127.0.0.1 (DNS rebinding)
    sends its own name as Host, and its own origin as Origin.

    ``bound`` is the configured address; ``allowed`` are further names, ``*`` all.
    """

    bound: str
    allowed: frozenset[str] = frozenset()

    def may(self, host: str) -> bool:
        """True for addresses, localhost, and names that are allowed.  Where the operator has opened the API to other
        machines (no loopback address is bound) and has named none, every name is.
        """
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if not name:
            return False
        if name in self.allowed or "*" in self.allowed or name == self.bound.lower():
            return True
        if name == "localhost" or name.endswith(".localhost") or _is_address(name):
            return True
        return not self.allowed and not is_loopback(self.bound)

    def problem(self, headers: Mapping[bytes, bytes]) -> str | None:
        """Why a request with these headers comes from elsewhere, or None."""
        host = headers.get(b"host", b"").decode("latin-1").strip().lower()
        if not self.may(host):
            return "This Host is not served here: use an address or localhost, or name it in control.allowed_hosts."
        origin = headers.get(b"origin")
        if origin is None:
            return None
        parts = origin.decode("latin-1").strip().lower().partition("://")
        if parts[0] in ("http", "https") and (parts[2] == host or (parts[2].partition(":")[0] in self.allowed)):
            return None
        return "Pages of other origins may not call the admin API."


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Door:
    """Lets a request in whose caller may do what it asks for, from no foreign page, with no body that is too large."""

    def __init__(self, app: ASGIApp, admin_token: str, engine: AsyncEngine, hosts: Hosts | None = None) -> None:
        self._app = app
        self._token = admin_token.encode()
        self._engine = engine
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            came = await self._caller(scope)
        except (SQLAlchemyError, OSError):
            came = rendered(CONTROL_AWAY, STORE_AWAY)
        most = _most(scope)
        whole = await _whole(receive, most) if isinstance(came, Actor) and scope["type"] == "http" else receive
        if whole is None:
            came = _too_large(most)
        if not isinstance(came, Actor):
            await came(scope, whole or receive, send)
            return
        before = ACTOR.set(came)
        try:
            await self._app(scope, whole or receive, send)
        finally:
            ACTOR.reset(before)

    async def _caller(self, scope: Scope) -> Actor | Response:
        """The caller as the audit log names it, or the refusal.  Raises SQLAlchemyError."""
        headers, method, path = dict(scope["headers"]), scope.get("method", ""), scope.get("path", "")
        linked = path.startswith(PATH)
        if linked:
            headers.pop(b"origin", None)  # without a referrer a browser says null; the link itself is what lets in
        checked = self._hosts if path not in PROBES else None
        if checked is not None and (sentence := checked.problem(headers)):
            return rendered(FOREIGN_ORIGIN, sentence)
        stranger = Actor("stranger", address=address_of(scope))
        if scope["type"] == "http" and (linked or path in OPEN_PATHS):
            return _within_bounds(headers, _most(scope)) or stranger
        need = need_of(method, path)
        if need is Need.NOTHING and scope["type"] == "http":
            return _within_bounds(headers, _most(scope)) or stranger
        principal = await self._principal(headers, stranger.address)
        if not isinstance(principal, Principal):
            return principal
        if isinstance(need, NotServed) or scope["type"] != "http":
            return not_served(method, path, need.methods if isinstance(need, NotServed) else ())
        if principal.csrf and method not in SAFE_METHODS and (sentence := _forged(headers, principal.csrf)):
            return rendered(CSRF_FAILED, sentence)
        if principal.role not in need.roles:
            return rendered(FORBIDDEN, f"Your role is {principal.role}; this needs {_either(need)}.")
        scope[PRINCIPAL] = principal
        return _within_bounds(headers, _most(scope)) or principal.actor

    async def _principal(self, headers: Mapping[bytes, bytes], address: str) -> Principal | Response:
        given = headers.get(b"authorization")
        if given is None and b"x-api-key" in headers:
            given = b"Bearer " + headers[b"x-api-key"]
        secret = cookie_of(headers)
        if given is None and secret is not None:
            return await self._of_session(secret, address)
        if given is None:
            sentence = "Send the admin token (Authorization: Bearer <STATE/admin.token>), or log in: POST /login."
            return rendered(MISSING_ADMIN_TOKEN, sentence)
        kind, _, value = given.partition(b" ")
        # an empty configured token must open nothing
        if kind.lower() == b"bearer" and self._token and hmac.compare_digest(value.strip(), self._token):
            return Principal("admin", ADMIN_TOKEN, address)
        return rendered(INVALID_ADMIN_TOKEN, "This is not the admin token of this gateway (STATE/admin.token).")

    async def _of_session(self, secret: str, address: str) -> Principal | Response:
        found = await sessions.of_secret(self._engine, secret)
        if found is None:
            return rendered(INVALID_SESSION, "This session has ended; log in again.")
        session, user = found
        return Principal(
            user.role, user.name, address, user.tenant, user.id, session.id, sessions.csrf_token(secret)
        )  # fmt: skip


def _most(scope: Scope) -> int:
    return LARGE_BODIES.get(f"{scope.get('method')} {scope.get('path')}", MAX_BODY)


def _too_large(most: int) -> Response:
    return rendered(PAYLOAD_TOO_LARGE, f"The body may have {most >> 20} MiB at most.")


def _within_bounds(headers: Mapping[bytes, bytes], most: int) -> Response | None:
    length = headers.get(b"content-length", b"0")
    return None if length.isdigit() and int(length) <= most else _too_large(most)


def _forged(headers: Mapping[bytes, bytes], csrf: str) -> str | None:
    """Why a change with a session may come from another page, or None."""
    if headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none"):
        return "Pages of other sites may not use this session."
    if not hmac.compare_digest(headers.get(CSRF_HEADER, b""), csrf.encode()):
        return "A change with a session needs the header X-CSRF-Token; POST /login and GET /me tell its value."
    return None


def _either(need: Need) -> str:
    names = [role.replace("_", " ") for role in ROLES if role in need.roles]
    return " or ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]


async def _whole(receive: Receive, most: int) -> Receive | None:
    """Gives the body in one piece; None where it is too large.  A body without a length is counted here, before any
    route: what is raised while one reads it, FastAPI takes for a body that cannot be parsed.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            break
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body"):
            message = {"type": "http.request", "body": bytes(body)}
            break
    read: list[Message] = [message]

    async def first_that() -> Message:
        return read.pop() if read else await receive()

    return first_that
