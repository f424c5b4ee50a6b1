"""What each route needs.  The only place that says so: a route that is not in the table is not there for any caller.

The door matches requests against this table, before FastAPI sees them.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.routing import compile_path

from headgate.control.identity.roles import Need

PREFIX = "/admin/v1"

_TABLE = {
    Need.NOTHING: (
        "POST /login",
        "GET /oidc/login",
        "GET /oidc/callback",
    ),
    Need.SIGNED_IN: (
        "GET /me",
        "POST /me/password",
        "POST /logout",
        "GET /sessions",
        "DELETE /sessions/{ident}",
    ),
    Need.READ: (
        "GET /providers",
        "GET /providers/{name}",
        "GET /presets",
        "GET /accounts",
        "GET /accounts/{wanted:path}",
        "GET /catalog",
        "GET /catalog/{name:path}",
        "POST /explain",
        "GET /budgets",
        "GET /budgets/{name}",
        "GET /health",
        "GET /cache",
        "GET /alerts",
        "GET /webhooks",
        "GET /invites",
        "GET /audit",
        "GET /audit/verify",
        "GET /usage/verify",
        "POST /usage/reconcile",
    ),
    Need.READ_OWN: (
        "GET /aliases",
        "GET /aliases/{name:path}",
        "GET /tenants",
        "GET /tenants/{name}",
        "GET /prompts",
        "GET /prompts/{name}",
        "GET /prompts/{name}/versions",
        "GET /prompts/{name}/versions/{version}",
        "POST /prompts/{name}/render",
        "GET /tokens",
        "GET /tokens/{ident}",
        "GET /requests",
        "GET /requests/{ident:path}",
        "GET /usage",
    ),
    Need.OPERATE: (
        "POST /providers",
        "PATCH /providers/{name}",
        "DELETE /providers/{name}",
        "POST /providers/{name}/check",
        "POST /providers/{name}/resume",
        "PUT /catalog/{name:path}",
        "DELETE /catalog/{name:path}",
        "POST /usage/reprice",
        "PUT /tenants/{name}",
        "DELETE /tenants/{name}",
        "PUT /budgets/{name}",
        "DELETE /budgets/{name}",
        "POST /webhooks/{name}/test",
        "POST /reload",
        "DELETE /cache",
        "POST /detect",
        "POST /drain",
    ),
    Need.OPERATE_OWN: (
        "PUT /aliases/{name:path}",
        "DELETE /aliases/{name:path}",
        "PATCH /prompts/{name}",
        "DELETE /prompts/{name}",
        "POST /prompts/{name}/versions",
        "DELETE /prompts/{name}/versions/{version}",
        "POST /tokens",
        "PATCH /tokens/{ident}",
        "POST /tokens/{ident}/rotate",
        "DELETE /tokens/{ident}",
    ),
    Need.ADMIN: (
        "POST /accounts",
        "PATCH /accounts/{wanted:path}",
        "DELETE /accounts/{wanted:path}",
        "GET /vault",
        "POST /vault/rotate",
        "POST /vault/master-key",
        "POST /vault/export",
        "POST /vault/import",
        "POST /invites",
        "DELETE /invites/{ident}",
        "GET /users",
        "POST /users",
        "GET /users/{wanted}",
        "PATCH /users/{wanted}",
        "DELETE /users/{wanted}",
        "POST /users/{wanted}/password",
    ),
}


NEEDS = {route: need for need, routes in _TABLE.items() for route in routes}

# fmt: off
_PATTERNS = [
    (compile_path(PREFIX + route.partition(" ")[2])[0], route.partition(" ")[0], need)
    for route, need in NEEDS.items()
]
# fmt: on


@dataclass(frozen=True, slots=True)
class NotServed:
    """No route has this method and path.  ``methods``: those that the path has, none where there is no such path."""

    methods: tuple[str, ...]


def need_of(method: str, path: str) -> Need | NotServed:
    """What a request needs."""
    found = {verb: need for pattern, verb, need in _PATTERNS if pattern.match(path)}
    return found.get(method) or NotServed(tuple(found))
