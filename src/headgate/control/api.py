"""The admin API: /admin/v1 on the control port, for the operator alone.

Owns its routes, their models, and its door: nothing but OPEN_PATHS answers without the admin token, whatever routes
exist. Errors have the same shape as on the data plane.  Refuses to change what the configuration file declares.
"""

from __future__ import annotations

import hmac
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from headgate import __version__
from headgate.control import tokens
from headgate.control.link import Link
from headgate.control.publication import ManagedByFile, NoSuchToken, Publication
from headgate.control.recorder import Recorder
from headgate.control.store import refusals
from headgate.errors import CONTROL_AWAY, INTERNAL, INVALID_VALUE, METHOD_NOT_ALLOWED, ROUTE_NOT_FOUND, Kind
from headgate.model import Grant

OPEN_PATHS = frozenset({"/livez", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
REFUSALS_WINDOW_S = 3600

MISSING_ADMIN_TOKEN = Kind(401, "authentication_error", "missing_admin_token")
INVALID_ADMIN_TOKEN = Kind(401, "authentication_error", "invalid_admin_token")
TOKEN_NOT_FOUND = Kind(404, "not_found_error", "token_not_found")
MANAGED_BY_FILE = Kind(409, "conflict_error", "managed_by_file")
INVALID_CONFIG = Kind(400, "invalid_request_error", "invalid_config")

ScopeName = Literal["gate:chat", "gate:models", "gate:usage"]


class TokenWish(BaseModel):
    """What a new token may do."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    scopes: list[ScopeName] = Field(default=["gate:chat", "gate:models", "gate:usage"], min_length=1, max_length=3)
    models: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(
        default=[], max_length=100, description="Models and aliases that it may use; empty: all."
    )
    expires: datetime | None = Field(default=None, description="ISO 8601 (UTC where no zone is given) or Unix seconds.")


class Token(BaseModel):
    """A token as the operator sees it.  Instants are Unix seconds; ``created`` is null where the file declares it."""

    object: Literal["headgate.token"] = "headgate.token"
    id: str
    name: str
    scopes: list[str]
    models: list[str]
    expires: float | None
    created: int | None
    revoked: int | None = None
    origin: Literal["store", "file"]


class NewToken(Token):
    """``token`` is shown here and never again.  ``pending``: not every data process has confirmed it yet."""

    token: str
    effective: bool
    pending: bool


class TokenList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Token]


class Revoked(BaseModel):
    object: Literal["headgate.token.revoked"] = "headgate.token.revoked"
    id: str
    effective: bool
    pending: bool


class ReloadResult(BaseModel):
    """``needs_restart``: keys that the file changes and that only a restart applies."""

    object: Literal["headgate.reload"] = "headgate.reload"
    generation: int
    changed: bool
    effective: bool
    pending: bool
    needs_restart: list[str]


class Refusal(Exception):
    """An error with its row of the table."""

    def __init__(self, kind: Kind, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param

    def response(self) -> JSONResponse:
        headers = {"www-authenticate": "Bearer"} if self.kind.status == 401 else None
        error = {"message": self.message, "type": self.kind.type, "param": self.param, "code": self.kind.code}
        return JSONResponse({"error": error}, self.kind.status, headers)


class Door:
    """ASGI middleware: the admin token or nothing.  Stands outside of the routes, so that none can be left open by
    mistake.
    """

    def __init__(self, app: ASGIApp, admin_token: str) -> None:
        self._app = app
        self._token = admin_token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await refusal.response()(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN_PATHS):
            return None
        headers = dict(scope["headers"])
        given = headers.get(b"authorization")
        if given is None:
            return Refusal(MISSING_ADMIN_TOKEN, "Send the admin token: Authorization: Bearer <STATE/admin.token>.")
        kind, _, value = given.partition(b" ")
        # an empty configured token must open nothing
        if kind.lower() == b"bearer" and self._token and hmac.compare_digest(value.strip(), self._token):
            return None
        return Refusal(INVALID_ADMIN_TOKEN, "This is not the admin token of this gateway (STATE/admin.token).")


class Admin:
    """The routes' shared surroundings, one per application."""

    def __init__(
        self, engine: AsyncEngine, publication: Publication, link: Link, recorder: Recorder, data_url: str
    ) -> None:
        self.engine = engine
        self.publication = publication
        self.link = link
        self.recorder = recorder
        self.data_url = data_url
        self.started_at = time.time()


def build(admin: Admin, admin_token: str) -> ASGIApp:
    """The application, behind its door."""
    app = FastAPI(title="Headgate admin API", version=__version__, redoc_url=None)
    app.include_router(_token_routes(admin), prefix="/admin/v1")
    app.include_router(_process_routes(admin), prefix="/admin/v1")
    app.include_router(_probe_routes(admin))
    app.add_exception_handler(Refusal, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(SQLAlchemyError, _on_store)
    app.add_exception_handler(Exception, _on_defect)
    return Door(app, admin_token)


def _locked_router(tag: str) -> APIRouter:
    # The Security entry only draws the lock in /docs; the Door is what holds
    return APIRouter(tags=[tag], dependencies=[Security(HTTPBearer(auto_error=False))])


def _token_routes(admin: Admin) -> APIRouter:
    router = _locked_router("tokens")

    @router.post("/tokens", status_code=201)
    async def create_token(wish: TokenWish) -> NewToken:
        """Makes an agent token.  It is shown in this answer only."""
        expires = _expiry(wish.expires)
        grant = Grant(id="", name=wish.name, scopes=tuple(wish.scopes), models=tuple(wish.models), expires=expires)
        minted, effective = await admin.publication.create(grant)
        shown = _token(minted.grant, minted.created_at)
        return NewToken(**shown.model_dump(), token=minted.token, effective=effective, pending=not effective)

    @router.get("/tokens")
    async def list_tokens(include_revoked: bool = False) -> TokenList:
        """Every token: those of the file first, then those of the store, oldest first."""
        rows = [row for row in await tokens.stored(admin.engine) if include_revoked or row.revoked_at is None]
        declared = [_token(grant, None) for grant in admin.publication.file_tokens()]
        return TokenList(data=declared + [_token(row.grant, row.created_at, row.revoked_at) for row in rows])

    @router.delete("/tokens/{ident}")
    async def revoke_token(ident: str) -> Revoked:
        """Revokes a token for good.  Calls that are running with it go on to their end."""
        try:
            effective = await admin.publication.revoke(ident)
        except ManagedByFile:
            raise Refusal(
                MANAGED_BY_FILE,
                f"The token {ident!r} is declared in the configuration file: remove it there and reload.",
            ) from None
        except NoSuchToken:
            raise Refusal(TOKEN_NOT_FOUND, f"There is no token {ident!r} that is in use.") from None
        return Revoked(id=ident, effective=effective, pending=not effective)

    return router


def _process_routes(admin: Admin) -> APIRouter:
    router = _locked_router("gateway")

    @router.post("/reload")
    async def reload() -> ReloadResult:
        """Reads the configuration file again.  Where it is bad, the last good one stays."""
        try:
            done = await admin.publication.reload()
        except (ValueError, OSError) as error:
            raise Refusal(INVALID_CONFIG, str(error)) from error
        return ReloadResult(
            generation=done.generation,
            changed=done.changed,
            effective=done.effective,
            pending=not done.effective,
            needs_restart=list(done.needs_restart),
        )

    @router.get("/health")
    async def health() -> dict[str, Any]:
        """What is known of the processes, the journal and the configuration."""
        return await _health(admin)

    return router


def _probe_routes(admin: Admin) -> APIRouter:
    router = APIRouter(tags=["probes"])

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        """503 while no data process is connected or the store does not take the journal."""
        ready = bool(admin.link.workers) and admin.recorder.lag().error is None
        return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    return router


async def _health(admin: Admin) -> dict[str, Any]:
    lag = admin.recorder.lag()
    return {
        "object": "headgate.health",
        "version": __version__,
        "uptime_s": round(time.time() - admin.started_at, 1),
        "data_url": admin.data_url,
        "generation": admin.publication.snapshot.generation,
        "workers": [
            {
                "worker": worker.name,
                "pid": worker.pid,
                "boot_id": worker.boot_id,
                "generation": worker.generation,
                "gauges": dict(worker.gauges),
                "gauges_at": worker.gauges_at / 1e9 if worker.gauges_at else None,
                "dropped_events": worker.dropped_events,
            }
            for worker in admin.link.workers
        ],
        "recorder": {
            "bytes_behind": lag.bytes,
            "records_behind": lag.records,
            "running_calls": lag.running,
            "unreadable_records": lag.unreadable,
            "records_set_aside": lag.set_aside,
            "error": lag.error,
        },
        "config": {
            "reloaded_at": admin.publication.reloaded_at,
            "reload_error": admin.publication.reload_error,
            "needs_restart": list(admin.publication.needs_restart),
        },
        "refusals": {"window_s": REFUSALS_WINDOW_S, "codes": await _refusals(admin.engine)},
    }


def _expiry(wish: datetime | None) -> float | None:
    if wish is None:
        return None
    at = (wish if wish.tzinfo else wish.replace(tzinfo=UTC)).timestamp()
    if at <= time.time():
        raise Refusal(INVALID_VALUE, "`expires` is in the past.", "expires")
    return at


def _token(grant: Grant, created_at: int | None, revoked_at: int | None = None) -> Token:
    return Token(
        id=grant.id,
        name=grant.name,
        scopes=list(grant.scopes),
        models=list(grant.models),
        expires=grant.expires,
        created=None if created_at is None else created_at // 1_000_000_000,
        revoked=None if revoked_at is None else revoked_at // 1_000_000_000,
        origin="file" if grant.origin == "file" else "store",
    )


async def _refusals(engine: AsyncEngine) -> dict[str, int]:
    since = int(time.time()) - REFUSALS_WINDOW_S
    query = select(refusals.c.code, func.sum(refusals.c.count)).where(refusals.c.second >= since)
    async with engine.connect() as connection:
        rows = await connection.execute(query.group_by(refusals.c.code).order_by(refusals.c.code))
        return {code: int(count) for code, count in rows}


async def _on_refusal(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return error.response()


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    # "body", "name" → name; a body that is not JSON has only a position there
    where = ".".join(str(step) for step in first["loc"][1:] if not isinstance(step, int)) or None
    message = f"{where}: {first['msg']}" if where else str(first["msg"])
    return Refusal(INVALID_VALUE, message, where).response()


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return Refusal(ROUTE_NOT_FOUND, f"There is no {request.url.path} here; see /docs.").response()
    if error.status_code == 405:
        refusal = Refusal(METHOD_NOT_ALLOWED, f"{request.method} is not a method of {request.url.path}; see /docs.")
        return refusal.response()
    return Refusal(Kind(error.status_code, "invalid_request_error", "invalid_value"), str(error.detail)).response()


async def _on_store(_request: Request, _error: Exception) -> JSONResponse:
    return Refusal(CONTROL_AWAY, "The store cannot be used at the moment; try again.").response()


async def _on_defect(_request: Request, _error: Exception) -> JSONResponse:
    return Refusal(INTERNAL, "This is a defect of the control process; its log says more.").response()
