"""The admin API's application: every noun's routes, behind the door."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from headgate import __version__
from headgate.control.api import docs, errors
from headgate.control.api.access import audit_log, logins, oidc_logins, people
from headgate.control.api.access.door import Door, Hosts
from headgate.control.api.nouns import (
    aliases,
    budgets,
    catalog,
    explain,
    gateway,
    prompts,
    providers,
    requests,
    tenants,
    tokens,
    usage,
)  # fmt: skip
from headgate.control.api.parts import Admin
from headgate.control.api.telemetry import alerts
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
    {"name": "prompts", "description": "Messages that clients name instead of sending them, in numbered versions."},
    {"name": "catalog", "description": "Models that can be asked for, their prices and facts."},
    {"name": "tokens", "description": "The agents' credentials."},
    {"name": "tenants", "description": "What stands above tokens, with limits and a budget of its own."},
    {"name": "budgets", "description": "Limits and budgets of groups of calls."},
    {"name": "requests", "description": "What was asked, how it went, what it cost."},
    {"name": "alerts", "description": "Alerts, and the webhooks that carry them."},
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
            known = schema["components"]["schemas"] | errors.schemas()
            for name in ("HTTPValidationError", "ValidationError"):
                known.pop(name, None)
            schema["components"]["schemas"] = dict(sorted(known.items()))
        return super().openapi()


def build(admin: Admin, admin_token: str, hosts: Hosts | None = None) -> ASGIApp:
    """The application, behind its door.  ``hosts``: its names for browsers; None: it is called in this process."""
    app = _App(
        title="Headgate admin API", version=__version__, description=ABOUT, openapi_tags=TAGS,
        docs_url=None, redoc_url=None, redirect_slashes=False,
    )  # fmt: skip
    guard = logins.Guard()
    accesses = (logins.public_routes, logins.routes, people.routes, oidc_logins.routes)
    routers = [access(admin, guard) for access in accesses]
    callers = (tokens, tenants, budgets)
    nouns = (
        providers,
        accounts,
        keys,
        invites,
        aliases,
        prompts,
        catalog,
        *callers,
        requests,
        usage,
        explain,
        gateway,
        alerts,
        audit_log,
    )
    routers += [noun.routes(admin) for noun in (*nouns, invite_pages)]
    for router in (*routers, gateway.probes(admin)):
        app.router.routes += router.routes
    docs.install(app)
    errors.install(app)
    return Door(app, admin_token, admin.engine, hosts)
