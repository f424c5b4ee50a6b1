"""Which target serves: (what was asked for, who asks, the world) → Plan.

Names resolve in WIRE's order: an alias, then what ``offers`` says.  Pure; what ``headgate explain`` will print is this.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.errors import MODEL_NOT_ALLOWED, MODEL_NOT_FOUND, NO_PROVIDER_KEY, NO_QUALIFYING_MODEL, GatewayError
from headgate.model import Alias, Attempt, Grant, ModelRow, Plan, Provider, Snapshot, Target, Timeouts
from headgate.policy.offers import Offers, known, price_of, ready

MAX_REMEMBERED = 4096
MAX_SHOWN = 10  # candidates in the sentence of an error
MAX_ATTEMPTS = 1  # failover comes with the router's second half


class Router:
    """Plans for one Snapshot.  Remembers them: a plan depends on nothing but the name and the Snapshot.

    ``before`` is the Router of an earlier one: where only tokens have changed since, who serves what is taken over.
    """

    __slots__ = ("_plans", "offers", "snapshot")

    def __init__(self, snapshot: Snapshot, before: Router | None = None) -> None:
        self.snapshot = snapshot
        self.offers: Offers
        if before is not None and before.snapshot.providers is snapshot.providers:
            self.offers = before.offers
        else:
            self.offers = Offers(snapshot.providers)
        self._plans: dict[str, Plan] = {}

    def plan(self, model: str | None, grant: Grant) -> Plan:
        """What to try for ``model`` (None: the configured default).

        Raises GatewayError: 404 where nothing has that name, 403 where this token may not use it, 503 where its
        provider has no key, 422 where ``unpriced: refuse`` leaves nothing.  Nothing is spent by then.
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
        keyed = [target for target in targets if ready(target.provider)]
        if not keyed:
            names = ", ".join(dict.fromkeys(target.provider.name for target in targets))
            raise GatewayError(
                NO_PROVIDER_KEY,
                f"{_shown(requested)} is served by {names}, which has no key here; "
                f"add keys: under providers: in the configuration",
            )
        usable = keyed
        if self.snapshot.unpriced == "refuse":
            usable = [target for target in keyed if known(target.price)]
            if not usable:
                raise _unpriced(requested, targets)
        return tuple(attempt for target in usable for attempt in _accounts(target))[:MAX_ATTEMPTS]

    def _targets(self, requested: str) -> list[Target]:
        snapshot = self.snapshot
        alias = snapshot.aliases.get(requested)
        if alias is not None:
            targets = [self._target(*offer, alias) for ref in alias.targets for offer in self.offers.of(ref.model)]
            if not targets:
                reason = alias.why or "no provider is configured; add one under providers: in the configuration"
                raise GatewayError(
                    NO_PROVIDER_KEY,
                    f"{_shown(requested)} has nothing to choose from: {reason.rstrip('.')}. "
                    "Ask for builtin/lorem to try the gateway itself",
                )
            return targets
        targets = [self._target(*offer, None) for offer in self.offers.of(requested)]
        if not targets:
            raise GatewayError(
                MODEL_NOT_FOUND,
                f"there is no model or alias {_shown(requested)} here; name a configured one, or provider/model",
                param="model",
            )
        return targets

    def _target(self, provider: Provider, model: str, row: ModelRow | None, alias: Alias | None) -> Target:
        timeouts = self.snapshot.timeouts
        if alias is not None and alias.timeouts:
            timeouts = _replaced(timeouts, alias.timeouts)
        price = price_of(provider, row)
        if row is None:
            return Target(provider, model, model, price, timeouts, None)
        if row.timeouts:  # a model row may raise a deadline, never lower it
            timeouts = _replaced(
                timeouts, {name: max(value, getattr(timeouts, name)) for name, value in row.timeouts.items()}
            )
        return Target(provider, model, row.upstream_model or model, price, timeouts, row)


def _accounts(target: Target) -> list[Attempt]:
    if target.provider.auth == "none":
        return [Attempt(target, None)]
    return [Attempt(target, account) for account in sorted(target.provider.accounts, key=lambda a: -a.priority)]


def _replaced(timeouts: Timeouts, changes: Mapping[str, float]) -> Timeouts:
    return Timeouts(**{name: changes.get(name, getattr(timeouts, name)) for name in Timeouts.__struct_fields__})


def _unpriced(requested: str, targets: list[Target]) -> GatewayError:
    """Every candidate and what speaks against it: nothing was tried, nothing was spent."""
    reasons = [
        f"{target.provider.name}/{target.model} "
        + ("has no known price" if ready(target.provider) else "has no key here")
        for target in targets
    ]
    more = f"; and {len(reasons) - MAX_SHOWN} more" if len(reasons) > MAX_SHOWN else ""
    return GatewayError(
        NO_QUALIFYING_MODEL,
        f"unpriced: refuse leaves no model for {_shown(requested)}: {'; '.join(reasons[:MAX_SHOWN])}{more}. "
        "Give the model a price, or set unpriced: allow",
        param="model",
    )


def _name(attempt: Attempt) -> str:
    return f"{attempt.target.provider.name}/{attempt.target.model}"


def _shown(name: str) -> str:
    """A client's own words, short and on one line."""
    return repr(name if len(name) <= 100 else name[:97] + "…")
