"""The admin API's door: who may come in, and how much they may bring.

ASGI middleware outside of the routes, so that no route can be left open by mistake: nothing but OPEN_PATHS answers
without the admin token, whatever routes exist.  Whoever comes in is the operator; roles would be told apart here.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headgate.control.api import docs
from headgate.control.api.errors import rendered
from headgate.control.refusals import FOREIGN_ORIGIN, INVALID_ADMIN_TOKEN, MISSING_ADMIN_TOKEN
from headgate.control.snapshot.contributors import PATH
from headgate.errors import PAYLOAD_TOO_LARGE

PROBES = frozenset({"/livez", "/readyz"})
OPEN_PATHS = PROBES | {docs.PAGE, docs.STYLE, "/openapi.json"}
MAX_BODY = 1 << 20


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
        return not self.allowed and not _is_loopback(self.bound)

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


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


class Door:
    """The admin token or nothing, from no foreign page, and no body above MAX_BODY."""

    def __init__(self, app: ASGIApp, admin_token: str, hosts: Hosts | None = None) -> None:
        self._app = app
        self._token = admin_token.encode()
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        whole = await _whole(receive) if refusal is None and scope["type"] == "http" else receive
        if whole is None:
            refusal = rendered(PAYLOAD_TOO_LARGE, _TOO_LARGE)
        await (refusal or self._app)(scope, whole or receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = dict(scope["headers"])
        linked = scope["type"] == "http" and scope["path"].startswith(PATH)
        if linked:
            headers.pop(b"origin", None)  # without a referrer a browser says null; the link itself is what lets in
        checked = self._hosts if scope.get("path") not in PROBES else None
        if checked is not None and (sentence := checked.problem(headers)):
            return rendered(FOREIGN_ORIGIN, sentence)
        is_open = scope["type"] == "http" and (linked or scope["path"] in OPEN_PATHS)
        refusal = None if is_open else self._stranger(headers)
        if refusal is not None:
            return refusal
        length = headers.get(b"content-length", b"0")
        return None if length.isdigit() and int(length) <= MAX_BODY else rendered(PAYLOAD_TOO_LARGE, _TOO_LARGE)

    def _stranger(self, headers: Mapping[bytes, bytes]) -> Response | None:
        given = headers.get(b"authorization")
        if given is None and b"x-api-key" in headers:
            given = b"Bearer " + headers[b"x-api-key"]
        if given is None:
            sentence = "Send the admin token: Authorization: Bearer <STATE/admin.token>."
            return rendered(MISSING_ADMIN_TOKEN, sentence)
        kind, _, value = given.partition(b" ")
        # an empty configured token must open nothing
        if kind.lower() == b"bearer" and self._token and hmac.compare_digest(value.strip(), self._token):
            return None
        return rendered(INVALID_ADMIN_TOKEN, "This is not the admin token of this gateway (STATE/admin.token).")


_TOO_LARGE = f"The body may have {MAX_BODY >> 20} MiB at most."


async def _whole(receive: Receive) -> Receive | None:
    """Gives the body in one piece; None where it is too large.  A body without a length is counted here, before any
    route: what is raised while one reads it, FastAPI takes for a body that cannot be parsed.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            break
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body"):
            message = {"type": "http.request", "body": bytes(body)}
            break
    read: list[Message] = [message]

    async def first_that() -> Message:
        return read.pop() if read else await receive()

    return first_that
