"""Fixtures for the tests of policy: providers, plans, and a driver that plays a call through its attempts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from headgate import errors
from headgate.dialects.openai_chat import read
from headgate.errors import GatewayError, Kind
from headgate.model import Account, Alias, Call, Grant, ModelRow, Plan, Price, Provider, Snapshot, TargetRef
from headgate.policy.attempts.next_attempt import NextAttempt
from headgate.policy.attempts.progress import Step
from headgate.policy.health.targets import HealthState
from headgate.policy.routing.router import Router

ANYONE = Grant("t", "anyone")

Upstream = Callable[[float, int], GatewayError | None]
"""(now, number of earlier requests) → the failure, or None for success."""


def call(model: str | None = "chat", **members: Any) -> Call:
    return read(json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}], **members}).encode())


def provider(name: str, *models: ModelRow, keys: int | Sequence[Account] = 1, **more: Any) -> Provider:
    if isinstance(keys, int):
        keys = [Account(f"{name}/{index}") for index in range(keys)]
    more.setdefault("auth", "bearer" if keys else "none")
    rows = {row.id: row for row in models} or None
    return Provider(name, f"http://{name}.test/v1", accounts=tuple(keys), models=rows, **more)


def router(*providers: Provider, aliases: Sequence[Alias] = (), **more: Any) -> Router:
    return Router(
        Snapshot(providers={one.name: one for one in providers}, aliases={one.name: one for one in aliases}, **more)
    )


def chain(*targets: str, name: str = "chat", **more: Any) -> Alias:
    return Alias(name, tuple(TargetRef(target) for target in targets), **more)


def plan(*rows: ModelRow, keys: int = 1, **more: Any) -> Plan:
    """A chain over one provider a row: p0, p1, …; two of them where no rows are given."""
    models = rows or (ModelRow("m"), ModelRow("m"))
    providers = [provider(f"p{index}", row, keys=keys) for index, row in enumerate(models)]
    targets = [f"p{index}/{row.id}" for index, row in enumerate(models)]
    return router(*providers, aliases=[chain(*targets, **more)]).plan(call(), ANYONE)


def error(kind: Kind, status: int | None = None, retry_after: float | None = None) -> GatewayError:
    return GatewayError(kind, "said the upstream", upstream_status=status, retry_after=retry_after)


def status(code: int, retry_after: float | None = None) -> GatewayError:
    kinds = {
        400: errors.UPSTREAM_REFUSED, 401: errors.UPSTREAM_AUTH, 402: errors.UPSTREAM_UNPAID,
        403: errors.UPSTREAM_DENIED,
        404: errors.UPSTREAM_MODEL_NOT_FOUND, 413: errors.PAYLOAD_TOO_LARGE, 422: errors.UPSTREAM_UNPROCESSABLE,
        429: errors.RATE_LIMITED, 500: errors.UPSTREAM_FAILED, 502: errors.UPSTREAM_FAILED,
        503: errors.UPSTREAM_OVERLOADED, 529: errors.UPSTREAM_OVERLOADED,
    }  # fmt: skip
    return error(kinds[code], code, retry_after)


def always(failure: GatewayError | None) -> Upstream:
    return lambda now, visit: failure


def once(failure: GatewayError) -> Upstream:
    return lambda now, visit: failure if visit == 0 else None


fine = always(None)


class CallTrace:
    """The record of one call, played to its end.  ``tries``: (seconds since its start, provider, account, why)."""

    def __init__(self) -> None:
        self.tries: list[tuple[float, str, str | None, str]] = []
        self.error: GatewayError | None = None
        self.ended = 0.0

    @property
    def providers(self) -> list[str]:
        return [name for _, name, _, _ in self.tries]

    @property
    def whys(self) -> list[str]:
        return [why for _, _, _, why in self.tries]


class Simulation:
    """Upstreams by provider name (or account id), with manual time; calls are played one after the other."""

    def __init__(self, upstreams: dict[str, Upstream], chance: Callable[[], float] = lambda: 0.5) -> None:
        self.upstreams = upstreams
        self.health = HealthState()
        self.now = 1000.0
        self.chance = chance
        self.takes_s = 0.01  # how long one attempt takes
        self._visits: dict[str, int] = {}

    def play(self, one: Plan, timeout: float = 600.0) -> CallTrace:
        trace = CallTrace()
        began = self.now
        attempts = NextAttempt(one, self.health, self.chance)
        try:
            step: Step | None = attempts.first(self.now, began + timeout)
            assert step is not None
            self.health.traffic[step.attempt.target.provider.name] += 1
        except GatewayError as failure:
            trace.error = failure
            return trace
        while step is not None:
            self.health.commit(step.attempt, step.claims, self.now)
            self.now += step.wait
            assert self.now < began + timeout
            attempt = step.attempt
            account = attempt.account.id if attempt.account else None
            trace.tries.append((self.now - began, attempt.target.provider.name, account, step.why))
            name = account if account in self.upstreams else attempt.target.provider.name
            visit = self._visits.get(name, 0)
            self._visits[name] = visit + 1
            trace.error = self.upstreams[name](self.now, visit)
            self.now += self.takes_s
            if trace.error is None:
                attempts.succeeded(self.now, self.now)
                break
            step = attempts.after(trace.error, self.now)
        trace.ended = self.now - began
        return trace


PRICED = Price(1_000_000_000, 2_000_000_000, source="file")
