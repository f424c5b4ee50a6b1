"""The door of a call: whether it may run now, what it holds while it runs, and by which plan."""

from __future__ import annotations

import time
from collections.abc import Mapping

from msgspec.structs import replace

from headgate.dialects import canonical
from headgate.errors import BUDGET_EXCEEDED, GatewayError
from headgate.model import Attempt, Call, Grant, Plan, Quotas
from headgate.policy.admission.calibration import Calibration
from headgate.policy.admission.quotas import is_model, quotas_of
from headgate.policy.admission.wants import Wants, priced
from headgate.policy.routing.router import Router, session_of
from headgate.ports import Counters
from headgate.serving.call.holding import Holding
from headgate.serving.call.receipt import Receipt


class Admission:
    """One process's."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._learnt = Calibration()
        self._wants = Wants(self._learnt)

    def admit(
        self, call: Call, grant: Grant, plan: Plan, headers: Mapping[bytes, bytes], receipt: Receipt, router: Router
    ) -> tuple[Call, Plan]:
        """Return the call and its plan as they may run.  Raises GatewayError: 402 and 429 where a budget or a limit
        stands in the way.
        """
        table = router.quotas
        quotas = table.known.get(grant.id) or table.of(grant)
        if table.grouped:
            found = table.matching(
                call.metadata or {}, lambda: session_of(call, headers), plan.attempts, lambda: call.prompt.user
            )
            quotas = quotas_of(quotas.each + found)
        if not quotas.each:
            return call, plan
        try:
            want = self._wants.make(receipt.id, quotas, call, plan, receipt.prompt_tokens)
            if want is not None:
                hold = self._counters.take(want, time.time())
                receipt.holding = Holding(self._counters, quotas, self._learnt, hold)
                return (canonical.capped(call, hold.cap // call.prompt.choices) if hold.cap else call), plan
            return self._take(quotas, call, replace(plan, attempts=priced(plan)), receipt)
        except GatewayError as error:
            refused = error
        receipt.holding = Holding(self._counters, quotas, self._learnt)
        others = _without_limited_models(quotas, plan.attempts)
        if others and others is not plan.attempts:
            left = quotas_of(tuple(quota for quota in quotas.each if not quota.model))
            return self._take(left, call, replace(plan, attempts=others), receipt)
        instead = table.over_budget(grant) if refused.kind is BUDGET_EXCEEDED else ""
        if not instead or instead == plan.requested:
            raise refused
        cheaper = router.plan(replace(call, model=instead), replace(grant, models=()), headers)
        return self._take(quotas, call, replace(cheaper, requested=plan.requested), receipt)

    def show(self, receipt: Receipt, router: Router) -> None:
        """What is left of its limits is in the answer of a call that fails before it is admitted, too."""
        if receipt.holding is None and receipt.grant is not None and not router.quotas.empty:
            receipt.holding = Holding(self._counters, router.quotas.of(receipt.grant), self._learnt)

    def _take(self, quotas: Quotas, call: Call, plan: Plan, receipt: Receipt) -> tuple[Call, Plan]:
        """Admit the call by another plan than its own."""
        want = self._wants.make(receipt.id, quotas, call, plan, receipt.prompt_tokens)
        if want is None:
            return self._take(quotas, call, replace(plan, attempts=priced(plan)), receipt)
        hold = self._counters.take(want, time.time())
        receipt.holding = Holding(self._counters, quotas, self._learnt, hold)
        return (canonical.capped(call, hold.cap // call.prompt.choices) if hold.cap else call), plan


def _without_limited_models(quotas: Quotas, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """Those of a plan's attempts that no quota on a model counts: they may serve where such a quota has none left."""
    limited = [quota.model for quota in quotas.each if quota.model]
    if not limited:
        return attempts
    return tuple(one for one in attempts if not any(is_model(one.target, model) for model in limited))
