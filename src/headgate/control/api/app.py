"""The admin API's application: every noun's routes, behind the door."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from headgate import __version__
from headgate.control.api import docs, errors
from headgate.control.api.access import audit_log, logins, oidc_logins, people
from headgate.control.api.access.door import Door, Hosts
from headgate.control.api.access.needs import PREFIX
from headgate.control.api.nouns import (
    aliases,
    budgets,
    catalog,
    explain,
    gateway,
    providers,
    requests,
    tenants,
    tokens,
    usage,
)  # fmt: skip
from headgate.control.api.parts import Admin
from headgate.control.api.vault import accounts, invite_pages, invites, keys

ABOUT = """
What `headgate.yaml` declares is read-only here (409 `managed_by_file`); everything else lives in the store. Prices are
USD per million tokens, instants Unix seconds. A change answers `effective: true` once every data process has it.
Provider keys go in and never come out.
"""
TAGS = [
    {"name": "access", "description": "Logins, sessions, and the caller's own account."},
    {"name": "users", "description": "Who may log in, with which role."},
    {"name": "audit", "description": "Every change, and who made it."},
    {"name": "providers", "description": "Who is called, and what is known of services."},
    {"name": "accounts", "description": "Providers' keys, sealed in the store."},
    {"name": "vault", "description": "What seals them, and the vault as a whole."},
    {"name": "invites", "description": "Links with which others put a key into the vault."},
    {"name": "aliases", "description": "Names for jobs."},
    {"name": "catalog", "description": "Models that can be asked for, their prices and facts."},
    {"name": "tokens", "description": "The agents' credentials."},
    {"name": "tenants", "description": "What stands above tokens, with limits and a budget of its own."},
    {"name": "budgets", "description": "Limits and budgets of groups of calls."},
    {"name": "requests", "description": "What was asked, how it went, what it cost."},
    {"name": "gateway", "description": "The gateway as a whole."},
    {"name": "probes", "description": "Without a token."},
]


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """FastAPI's, without the 422 that it documents everywhere: what is invalid is answered 400."""
        if self.openapi_schema is None:
            schema = super().openapi()
            for path in schema["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(name, None)
        return super().openapi()


def build(admin: Admin, admin_token: str, hosts: Hosts | None = None) -> ASGIApp:
    """The application, behind its door.  ``hosts``: its names for browsers; None: it is called in this process."""
    app = _App(
        title="Headgate admin API", version=__version__, description=ABOUT, openapi_tags=TAGS,
        docs_url=None, redoc_url=None, generate_unique_id_function=lambda route: route.name, redirect_slashes=False,
    )  # fmt: skip
    guard = logins.Guard()
    for access in (logins.public_routes, logins.routes, people.routes, oidc_logins.routes):
        app.include_router(access(admin, guard), prefix=PREFIX)
    callers = (tokens, tenants, budgets)
    nouns = (
        providers,
        accounts,
        keys,
        invites,
        aliases,
        catalog,
        *callers,
        requests,
        usage,
        explain,
        gateway,
        audit_log,
    )
    for noun in nouns:
        app.include_router(noun.routes(admin), prefix=PREFIX)
    app.include_router(gateway.probes(admin))
    app.include_router(invite_pages.routes(admin))
    docs.install(app)
    errors.install(app)
    return Door(app, admin_token, admin.engine, hosts)
