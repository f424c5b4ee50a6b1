"""Why a call is not admitted: which limit stands in its way, what is left of it, and when that changes.

A Retry-After is the instant at which the same call would be admitted if no other came before it.  Where several limits
stand in the way, the one that does so for longest is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from headgate.errors import (
    BUDGET_EXCEEDED,
    CONTROL_AWAY,
    TOO_MANY_AT_ONCE,
    TOO_MANY_REQUESTS,
    TOO_MANY_TODAY,
    TOO_MANY_TOKENS,
    GatewayError,
    Kind,
    LimitReached,
)
from headgate.model import Want
from headgate.policy.admission.meters import MINUTE, Meter
from headgate.policy.admission.periods import NEVER, written

SLOT_S = 1.0  # the time until a parallel slot is free is unknown; a second is a short poll
_MILLISECOND = 0.001


class Delay(NamedTuple):
    """``wait``: seconds until this limit admits the call; NEVER: waiting is of no use.  ``key``: of its quota.
    ``sooner``: the end of another call may bring that about earlier.
    """

    wait: float
    kind: Kind
    reason: str
    key: str
    sooner: bool = False
    again: str = ""

    def error(self) -> GatewayError:
        if self.wait == NEVER:
            return GatewayError(self.kind, self.reason)
        wait = math.ceil(max(self.wait, _MILLISECOND) * 1000) / 1000
        known = None if self.kind is TOO_MANY_AT_ONCE else wait
        return LimitReached(
            self.kind, self.reason, keys=(self.key,), wait=known, sooner=self.sooner, retry_after=wait,
            again=self.again,
        )  # fmt: skip


def unknown_spend() -> GatewayError:
    """Of a hard budget, whose counters do not know yet what was spent before they began."""
    return GatewayError(
        CONTROL_AWAY,
        "the gateway has just started and does not know yet what is spent of the budget that this call counts against; "
        "try again",
        retry_after=1,
    )


def over_budget(meter: Meter, cost: int) -> GatewayError:
    """``cost``: nano-USD that the call would have to hold at least."""
    budget = meter.quota.budget
    assert budget is not None
    if budget.period == "total":
        whole, when = "in total", "it does not reset"
    else:
        whole = f"per {budget.period}"
        when = f"it resets at {written(meter.period_ends, budget.zone)} ({budget.zone})"
    running = f" and {_usd(meter.held)} are held by running calls" if meter.held else ""
    return GatewayError(
        BUDGET_EXCEEDED,
        f"{meter.quota.holder} has a budget of {_usd(budget.amount)} {whole}: {_usd(meter.spent)} are spent{running}, "
        f"{_usd(meter.room)} are left, and this call may cost {_usd(cost)}; {when}",
    )


def over_limit(want: Want, meters: list[Meter], now: float) -> GatewayError | None:
    """The error of a call that some limit does not admit now; None if all do."""
    refusals = [refusal for meter in meters for refusal in _refusals(want, meter, now)]
    return max(refusals, key=_of_wait).error() if refusals else None


def _refusals(want: Want, meter: Meter, now: float) -> Iterator[Delay]:
    quota = meter.quota
    holder = quota.holder
    if meter.today >= quota.rpd:
        wait = meter.day_ends - now if quota.rpd else NEVER
        message = f"{holder} may make {quota.rpd} requests a day (UTC) and has made {meter.today}"
        yield Delay(wait, TOO_MANY_TODAY, f"{message}; it resets at {written(meter.day_ends, 'UTC')}", quota.key)
    if meter.running >= quota.parallel:
        message = f"{holder} may run {quota.parallel} calls at a time, and {meter.running} are running"
        yield Delay(SLOT_S if quota.parallel else NEVER, TOO_MANY_AT_ONCE, message, quota.key, True)
    if meter.requests >= quota.rpm:
        wait = _wait(meter, now, requests=meter.requests - quota.rpm + 1)
        message = f"{holder} may make {quota.rpm} requests a minute and has made {meter.requests}"
        yield Delay(wait, TOO_MANY_REQUESTS, message, quota.key, again=_again(wait))
    weight = min(want.prompt + want.extent.least, quota.tpm)
    if want.prompt > quota.tpm:
        message = f"{holder} may use {quota.tpm} tokens a minute, and this prompt alone has about {want.prompt}"
        yield Delay(NEVER, TOO_MANY_TOKENS, message, quota.key)
    elif meter.tokens + weight > quota.tpm:
        wait = _wait(meter, now, tokens=meter.tokens + weight - quota.tpm)
        message = f"{holder} may use {quota.tpm} tokens a minute, {max(0, quota.tpm - meter.tokens)} are left"
        message = f"{message}, and this call may need {weight}"
        runs = meter.running > 0  # a call that ends may give tokens back
        yield Delay(wait, TOO_MANY_TOKENS, message, quota.key, runs, _again(wait))


def _of_wait(refusal: Delay) -> float:
    return refusal.wait


def _wait(meter: Meter, now: float, requests: int = 0, tokens: int = 0) -> float:
    """Seconds until so many requests and tokens of the last minute no longer count."""
    for entry in meter.entries:
        requests -= entry.requests
        tokens -= entry.tokens
        if requests <= 0 and tokens <= 0:
            return min(MINUTE, entry.at + MINUTE - now + _MILLISECOND)
    return NEVER


def _again(wait: float) -> str:
    return "" if wait == NEVER else f"; try again in {wait:.1f} s"


def _usd(nano: int) -> str:
    return f"{nano / 1e9:.9f}".rstrip("0").rstrip(".") + " USD"
