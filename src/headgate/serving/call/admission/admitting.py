"""The door of a call: whether it may run now, what it holds while it runs, and by which plan."""

from __future__ import annotations

import time
from collections.abc import Mapping

from msgspec.structs import replace

from headgate.dialects import canonical
from headgate.errors import BUDGET_EXCEEDED, GatewayError
from headgate.model import Attempt, Call, Extent, Grant, Plan, Quotas, Want
from headgate.policy.admission.calibration import Calibration
from headgate.policy.admission.quotas import QuotaTable, is_model, quotas_of
from headgate.policy.admission.refusals import unknown_spend
from headgate.policy.admission.wants import Wants
from headgate.policy.routing.router import Router, session_of
from headgate.ports import Counters
from headgate.serving.call.admission.holding import Holding, ReplayHolding
from headgate.serving.call.running import RunningCall

_now = time.time


class Admission:
    """One process's."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._learnt = Calibration()
        self._wants = Wants(self._learnt)

    def admit(
        self, call: Call, grant: Grant, plan: Plan, headers: Mapping[bytes, bytes], receipt: RunningCall, router: Router
    ) -> tuple[Call, Plan]:
        """Return the call and its plan as they may run.  Raises GatewayError: 402 and 429 where a budget or a limit
        stands in the way, 503 where it is not known what is spent of a hard budget.
        """
        table = router.quotas
        quotas = table.known.get(grant.id) or table.of(grant)
        if table.grouped:
            quotas = _with_groups(quotas, table, call, plan, headers)
        if not quotas.each:
            return call, plan
        if receipt.cache is not None and receipt.cache.stored is not None:
            self._take_replay(quotas, receipt)
            return call, plan
        try:
            return self._take(quotas, call, plan, receipt)
        except GatewayError as error:
            refused = error
        receipt.holding = Holding(self._counters, quotas, self._learnt)
        others = _without_limited_models(quotas, plan.attempts)
        if others and others is not plan.attempts:
            left = quotas_of(tuple(quota for quota in quotas.each if not quota.model))
            try:
                return self._take(left, call, replace(plan, attempts=others), receipt)
            except GatewayError as error:
                refused = error  # it stands in the way of every target
        instead = table.over_budget(grant) if refused.kind is BUDGET_EXCEEDED else ""
        if not instead or instead == plan.requested:
            raise refused
        cheaper = router.plan(replace(call, model=instead), replace(grant, models=()), headers)
        quotas = _with_groups(
            table.of(grant), table, call, cheaper, headers
        )  # groups of a model may count this one, and not that
        return self._take(quotas, call, replace(cheaper, requested=plan.requested), receipt)

    def attach_standing(self, receipt: RunningCall, router: Router) -> None:
        """What is left of its limits is in the answer of a call that fails before it is admitted, too."""
        if receipt.holding is None and receipt.grant is not None and not router.quotas.empty:
            receipt.holding = Holding(self._counters, router.quotas.of(receipt.grant), self._learnt)

    def _take_replay(self, quotas: Quotas, receipt: RunningCall) -> None:
        """Admit a call that is answered from the response cache: no model serves it, and it costs neither tokens nor
        money.  Raises GatewayError (429).
        """
        left = quotas_of(tuple(quota for quota in quotas.each if not quota.model))
        holding = receipt.holding = ReplayHolding(self._counters, left, self._learnt)
        holding.hold = self._counters.take(Want(receipt.id, left, 0, Extent(0, 0, 0)), time.time())

    def _take(self, quotas: Quotas, call: Call, plan: Plan, receipt: RunningCall) -> tuple[Call, Plan]:
        """Admit the call by this plan, or by those of its attempts that a hard budget can pay."""
        if not self._counters.restored and quotas.hard:
            raise unknown_spend()
        want = self._wants.make(receipt.id, quotas, call, plan, receipt.prompt_tokens)
        if want is None:
            plan = replace(plan, attempts=self._wants.payable(plan))
            want = self._wants.make(receipt.id, quotas, call, plan, receipt.prompt_tokens)
            assert want is not None
        hold = self._counters.take(want, _now())
        receipt.holding = Holding(self._counters, quotas, self._learnt, hold)
        return (canonical.capped(call, hold.cap // call.prompt.choices) if hold.cap else call), plan


def _with_groups(own: Quotas, table: QuotaTable, call: Call, plan: Plan, headers: Mapping[bytes, bytes]) -> Quotas:
    """Return a token's quotas, and those of the groups that a call by this plan matches."""
    return quotas_of(own.each + table.matching(call, lambda: session_of(call, headers), plan.attempts))


def _without_limited_models(quotas: Quotas, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """Those of a plan's attempts that no quota on a model counts: they may serve where such a quota has none left."""
    limited = [quota.model for quota in quotas.each if quota.model]
    if not limited:
        return attempts
    return tuple(one for one in attempts if not any(is_model(one.target, model) for model in limited))
