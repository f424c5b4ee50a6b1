"""Tenants and groups of calls as the operator changes them in the store: see ``changes``.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from headgate.catalog import names
from headgate.control.objects import registry
from headgate.control.objects.assemble import Sources, all_tenants
from headgate.control.objects.registry import Objects, StoredGroup, StoredTenant
from headgate.control.refusals import BUDGET_NOT_FOUND, IN_USE, MANAGED_BY_FILE, TENANT_NOT_FOUND, TOO_MANY
from headgate.errors import GatewayError
from headgate.model import Grant
from headgate.resources.callers.group import GroupWish
from headgate.resources.callers.tenant import TenantWish

MAX_TENANTS, MAX_GROUPS = 10_000, 200  # every call is compared with every group


def put_tenant(sources: Sources, name: str, body: TenantWish) -> Objects:
    """A new tenant, or a stored one anew."""
    if name in sources.compiled.world.tenants:
        raise _managed(f"The tenant {name}")
    kept = sources.objects.tenants
    _room(len(kept), MAX_TENANTS, "tenants", name in kept)
    stored = StoredTenant(*registry.now(kept.get(name)), body)
    return replace(sources.objects, tenants={**kept, name: stored})


def drop_tenant(sources: Sources, name: str, grants: Iterable[Grant]) -> Objects:
    """Without the tenant, unless tokens or aliases are its own."""
    kept = sources.objects.tenants
    if name not in kept:
        if name in sources.compiled.world.tenants:
            raise _managed(f"The tenant {name}")
        raise no_tenant(name, kept)
    if name not in sources.compiled.world.tenants:  # else the file's, which stays, has them
        held = [f"the token {grant.name}" for grant in grants if grant.tenant == name]
        held += [f"the alias {alias}" for alias in sources.objects.aliases if names.tenant_of(alias) == name]
        held += [f"the prompt {one.body.name}" for one in sources.objects.prompts.values() if one.body.tenant == name]
        if held:
            more = f" and {len(held) - 3} more" if len(held) > 3 else ""
            raise GatewayError(IN_USE, f"The tenant {name} has {', '.join(held[:3])}{more}. Change or end them first.")
    return replace(sources.objects, tenants={one: body for one, body in kept.items() if one != name})


def existing_tenant(name: str | None, sources: Sources) -> None:
    """Raises GatewayError (404) for a tenant that is not there."""
    if name and name not in all_tenants(sources):
        raise no_tenant(name, all_tenants(sources))


def no_tenant(name: str, known: Iterable[str]) -> GatewayError:
    near = names.nearest(name, known)
    return GatewayError(TENANT_NOT_FOUND, names.ended(f"There is no tenant {name!r}{near}"), param="tenant")


def put_group(sources: Sources, name: str, body: GroupWish) -> Objects:
    """A new group of calls, or a stored one anew."""
    if any(group.id == name for group in sources.compiled.world.groups):
        raise _managed(f"The budget {name}")
    kept = sources.objects.groups
    _room(len(kept), MAX_GROUPS, "budgets", name in kept)
    return replace(sources.objects, groups={**kept, name: StoredGroup(*registry.now(kept.get(name)), body)})


def drop_group(sources: Sources, name: str) -> Objects:
    """Without the group."""
    kept = sources.objects.groups
    if name not in kept:
        if any(group.id == name for group in sources.compiled.world.groups):
            raise _managed(f"The budget {name}")
        raise no_group(name, kept)
    return replace(sources.objects, groups={one: body for one, body in kept.items() if one != name})


def no_group(name: str, known: Iterable[str]) -> GatewayError:
    near = names.nearest(name, known)
    return GatewayError(BUDGET_NOT_FOUND, names.ended(f"There is no budget {name!r}{near}"))


def _managed(shown: str) -> GatewayError:
    return GatewayError(MANAGED_BY_FILE, f"{shown} is declared in the configuration file: change it there and reload.")


def _room(there: int, limit: int, nouns: str, is_known: bool) -> None:
    if not is_known and there >= limit:
        raise GatewayError(TOO_MANY, f"There are {limit} {nouns} in the store, which is the limit; delete some first.")
