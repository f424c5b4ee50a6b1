"""The caller of a route, as the door found it; the session's cookie; what a tenant admin may see and touch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, TypeVar

import msgspec
from fastapi import Depends, Request, Response
from starlette.requests import cookie_parser
from starlette.types import Scope

from headgate.control.identity.roles import Principal
from headgate.control.identity.sessions import MAX_S
from headgate.control.refusals import FORBIDDEN
from headgate.errors import GatewayError
from headgate.model import Grant
from headgate.wire.urls import is_loopback

PRINCIPAL = "headgate.principal"  # in the ASGI scope
SECURE_COOKIE, PLAIN_COOKIE = "__Host-headgate", "headgate"
T = TypeVar("T")


def _principal(request: Request) -> Principal:
    found = request.scope[PRINCIPAL]
    assert isinstance(found, Principal)
    return found


Caller = Annotated[Principal, Depends(_principal)]


def address_of(scope: Scope) -> str:
    """The peer's address, empty where there is none."""
    client = scope.get("client")
    return str(client[0]) if client else ""


# ------------------------------------------------------------------------------------- the cookie


def cookie_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The session's secret, None without one."""
    cookies = cookie_parser(headers.get(b"cookie", b"").decode("latin-1"))
    return cookies.get(cookie_name(headers)) or None


def cookie_name(headers: Mapping[bytes, bytes]) -> str:
    """The plain one on this machine's loopback, where there is no TLS; a browser sends the other one over TLS only."""
    return PLAIN_COOKIE if on_loopback(headers) else SECURE_COOKIE


def on_loopback(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the browser has come to a loopback address of its own machine."""
    host = headers.get(b"host", b"").decode("latin-1").lower()
    return is_loopback(host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0])


def set_cookie(request: Request, response: Response, secret: str) -> None:
    """Give the browser its session; an empty ``secret`` takes it away."""
    name = cookie_name(dict(request.scope["headers"]))
    response.set_cookie(
        name, secret, max_age=MAX_S if secret else 0, path="/", secure=name == SECURE_COOKIE, httponly=True,
        samesite="strict",
    )  # fmt: skip


# ------------------------------------------------------------------------------------- a tenant's own


def own_grants(caller: Principal, grants: Iterable[Grant]) -> list[Grant]:
    """The tokens that exist for this caller."""
    return [grant for grant in grants if caller.bound_to in (None, grant.tenant)]


def bounded(caller: Principal, grant: Grant) -> Grant:
    """A new token as this caller may make it."""
    return grant if caller.bound_to is None else msgspec.structs.replace(grant, tenant=caller.bound_to)


def own_alias(caller: Principal, name: str) -> bool:
    """Whether the alias exists for this caller.  A tenant's are ``client:<tenant>/<leaf>``."""
    bound = caller.bound_to
    return bound is None or (bool(bound) and name.startswith(f"client:{bound}/"))


def hold_alias(caller: Principal, name: str) -> None:
    """Raises GatewayError (403) for an alias of another tenant."""
    if not own_alias(caller, name):
        raise GatewayError(FORBIDDEN, f"Your role knows aliases of its own tenant only: client:{caller.tenant}/…")
