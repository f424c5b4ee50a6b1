"""Which target serves: (what was asked for, who asks, the world) → Plan.

Names resolve in WIRE's order: an alias; then a model id of the providers' rows (one id at several providers is a pool
in file order); then ``provider/model id``, split at the first slash.  Pure; what ``headgate explain`` will print is
this.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.errors import MODEL_NOT_ALLOWED, MODEL_NOT_FOUND, NO_PROVIDER_KEY, GatewayError
from headgate.model import Alias, Attempt, Grant, ModelRow, Plan, Provider, Snapshot, Target, Timeouts

MAX_REMEMBERED = 4096
MAX_ATTEMPTS = 1  # failover comes with the router's second half


class Router:
    """Plans for one Snapshot.  Remembers them: a plan depends on nothing but the name and the Snapshot."""

    __slots__ = ("_plans", "_rows", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._plans: dict[str, Plan] = {}
        self._rows: dict[str, list[tuple[Provider, ModelRow]]] = {}
        for provider in snapshot.providers.values():
            for row in (provider.models or {}).values():
                self._rows.setdefault(row.id, []).append((provider, row))

    def plan(self, model: str | None, grant: Grant) -> Plan:
        """What to try for ``model`` (None: the configured default).

        Raises GatewayError: 404 where nothing has that name, 403 where this token may not use it, 503 where its
        provider has no key.  Nothing is spent by then.
        """
        requested = model or self.snapshot.default_model
        plan = self._plans.get(requested)
        if plan is None:
            plan = Plan(requested, self._attempts(requested))
            if len(self._plans) >= MAX_REMEMBERED:  # clients may name any model after a provider's slash
                self._plans.clear()
            self._plans[requested] = plan
        if grant.models and requested not in grant.models and not any(_name(a) in grant.models for a in plan.attempts):
            raise GatewayError(
                MODEL_NOT_ALLOWED, f"the API key {grant.name!r} may not use {_shown(requested)}", param="model"
            )
        return plan

    def _attempts(self, requested: str) -> tuple[Attempt, ...]:
        targets = self._targets(requested)
        usable = [attempt for target in targets for attempt in _accounts(target)]
        if not usable:
            names = ", ".join(dict.fromkeys(target.provider.name for target in targets))
            raise GatewayError(
                NO_PROVIDER_KEY,
                f"{_shown(requested)} is served by {names}, which has no key here; "
                f"add keys: under providers: in the configuration",
            )
        return tuple(usable[:MAX_ATTEMPTS])

    def _targets(self, requested: str) -> list[Target]:
        snapshot = self.snapshot
        alias = snapshot.aliases.get(requested)
        if alias is not None:
            if not alias.targets:
                raise GatewayError(
                    NO_PROVIDER_KEY,
                    f"no provider is configured, so {_shown(requested)} has nothing to choose from; "
                    "add one under providers: in the configuration, or ask for builtin/lorem to try the gateway itself",
                )
            return [target for ref in alias.targets for target in self._by_id(ref.model, alias)]
        targets = self._by_id(requested, None)
        if not targets:
            raise GatewayError(
                MODEL_NOT_FOUND,
                f"there is no model or alias {_shown(requested)} here; name a configured one, or provider/model",
                param="model",
            )
        return targets

    def _by_id(self, name: str, alias: Alias | None) -> list[Target]:
        rows = self._rows.get(name)
        if rows:
            return [self._target(provider, name, row, alias) for provider, row in rows]
        prefix, slash, rest = name.partition("/")
        provider = self.snapshot.providers.get(prefix)
        if not slash or not rest or provider is None:
            return []
        if provider.models is None:
            return [self._target(provider, rest, None, alias)]
        row = provider.models.get(rest)
        return [self._target(provider, rest, row, alias)] if row is not None else []

    def _target(self, provider: Provider, model: str, row: ModelRow | None, alias: Alias | None) -> Target:
        timeouts = self.snapshot.timeouts
        if alias is not None and alias.timeouts:
            timeouts = _replaced(timeouts, alias.timeouts)
        if row is None:
            return Target(provider, model, model, provider.price, timeouts, None)
        if row.timeouts:  # a model row may raise a deadline, never lower it
            timeouts = _replaced(
                timeouts, {name: max(value, getattr(timeouts, name)) for name, value in row.timeouts.items()}
            )
        return Target(provider, model, row.upstream_model or row.id, row.price, timeouts, row)


def _accounts(target: Target) -> list[Attempt]:
    if target.provider.auth == "none":
        return [Attempt(target, None)]
    return [Attempt(target, account) for account in sorted(target.provider.accounts, key=lambda a: -a.priority)]


def _replaced(timeouts: Timeouts, changes: Mapping[str, float]) -> Timeouts:
    return Timeouts(**{name: changes.get(name, getattr(timeouts, name)) for name in Timeouts.__struct_fields__})


def _name(attempt: Attempt) -> str:
    return f"{attempt.target.provider.name}/{attempt.target.model}"


def _shown(name: str) -> str:
    """A client's own words, short and on one line."""
    return repr(name if len(name) <= 100 else name[:97] + "…")
