"""What a call has to hold, by its plan: the prompt, and as much of the answer as may have to be paid.

A stream is stopped where its hold ends, so it begins with ``hold_tokens`` and is extended.  A whole answer, and the
reasoning that a model does not show, cannot be stopped: where a hard budget has to pay it, all that it may become is
held, or its length is capped (``Hold.cap``).
"""

from __future__ import annotations

from msgspec import Struct

from headgate.errors import NO_QUALIFYING_MODEL, GatewayError
from headgate.model import UNLIMITED, Attempt, Call, Extent, Plan, Price, Quotas, Target, Want
from headgate.model.bounded import Bounded
from headgate.policy import metering
from headgate.policy.admission.calibration import Calibration, Learnt

WIDEST = 131_072  # tokens: the longest answer of a model that says nothing of its own
CAPPED = 4096  # the ``max_tokens`` that every model accepts, where its own limit is not known
SHARE = 4  # a call that names no length takes a quarter of what is left at most
MAX_REMEMBERED = 4096
LEASE_S = 60.0  # beyond the last deadline of a call


class PlanTerms(Struct, frozen=True):
    """What holds for every call of one plan.

    ``price``: the highest of its targets; None: it depends on the prompt's size, or one is unknown (``is_priced``).
    ``payable``: the attempts whose price is known.  ``learnt``: what is known of its targets' models; ``sole``: where
    they have one.
    ``unseen``: a target may reason without showing it, or a stream is sent only when it is complete.  ``first``: tokens
    of output that a stream begins with, ``longest``: of the longest answer, ``cap``: the largest ``max_tokens`` that
    all targets accept.  ``extents`` are those of one answer of any length, by ``Quotas.hard`` and ``Call.stream``.
    """

    attempts: tuple[Attempt, ...]
    targets: tuple[Target, ...]
    learnt: tuple[Learnt, ...]
    sole: Learnt | None
    payable: tuple[Attempt, ...]
    is_priced: bool
    price: Price | None
    unseen: bool
    lease_s: float
    first: int
    longest: int
    cap: int
    extents: tuple[tuple[Extent, Extent], tuple[Extent, Extent]]


class Wants:
    """Makes the wants of calls.  Remembers the terms of plans, which the router reuses."""

    def __init__(self, learnt: Calibration) -> None:
        self._learnt = learnt
        self._terms: Bounded[int, PlanTerms] = Bounded(MAX_REMEMBERED)  # by the identity of attempts, which they keep

    def make(self, owner: str, quotas: Quotas, call: Call, plan: Plan, estimated: int) -> Want | None:
        """What ``call`` wants of ``quotas``.  ``estimated``: tokens of its prompt.

        None: a quota's budget is hard, and not all targets of the plan are priced: see ``payable``.
        """
        terms = self._terms.get(id(plan.attempts)) or self._make_terms(plan)
        if quotas.hard and not terms.is_priced:
            return None
        sole = terms.sole
        factor = sole.factor if sole is not None else max(one.factor for one in terms.learnt)
        prompt = int(estimated * factor) + 1
        price = terms.price
        if price is None and terms.is_priced:
            price = metering.ceiling([target.price for target in terms.targets], prompt)
        if call.max_tokens is None and "n" not in call.body:
            extent = terms.extents[quotas.hard][call.stream]
            return Want(owner, quotas, prompt, extent, price, terms.lease_s)
        choices = call.prompt.choices
        covered = quotas.hard and (terms.unseen or not call.stream)
        if covered and call.max_tokens is None:
            extent = _covered(terms.first * choices, terms.longest * choices, terms.cap * choices)
        else:
            longest = (call.max_tokens or UNLIMITED) * choices
            least = min(terms.first * choices, longest)
            extent = Extent(longest if covered else least, least, longest, step=least, whole=covered or not call.stream)
        return Want(owner, quotas, prompt, extent, price, terms.lease_s)

    def payable(self, plan: Plan) -> tuple[Attempt, ...]:
        """The attempts of a plan whose price is known: a hard budget can pay no others.  Raises GatewayError."""
        terms = self._terms.get(id(plan.attempts)) or self._make_terms(plan)
        if not terms.payable:
            unpriced = ", ".join(dict.fromkeys(one.target.name for one in plan.attempts))
            raise GatewayError(
                NO_QUALIFYING_MODEL,
                f"a hard budget pays only for models whose price is known, and that of {unpriced} is not; give it one",
                param="model",
            )
        return terms.payable

    def _make_terms(self, plan: Plan) -> PlanTerms:
        terms = _terms(plan, self._learnt)
        self._terms.put(id(plan.attempts), terms)
        return terms


def _covered(first: int, longest: int, cap: int) -> Extent:
    """Of an answer whose length the client does not limit: it takes no more than its share of what is left."""
    return Extent(longest, min(first, longest), longest, cap, SHARE, whole=True)


def _is_priced(price: Price) -> bool:
    return price.input is not None and price.output is not None


def _terms(plan: Plan, learnt: Calibration) -> PlanTerms:
    attempts = plan.attempts
    targets = tuple({id(one.target): one.target for one in attempts}.values())
    tiered = any(target.price.tiers for target in targets)
    rows = [target.row for target in targets]
    outputs = [row.max_output for row in rows if row is not None and row.max_output]
    windows = [row.context_window for row in rows if row is not None and row.context_window]
    if len(outputs) == len(targets):
        longest, cap = max(outputs), min(outputs)
    else:
        longest, cap = (max(windows) if len(windows) == len(targets) else WIDEST), CAPPED
    first = plan.alias.hold_tokens
    known = tuple({id(one): one for one in map(learnt.of, targets)}.values())
    unseen = plan.alias.holds or any(row is not None and "reasoning" in row.capabilities for row in rows)
    stream, covered = Extent(first, first, step=first), _covered(first, longest, cap)
    return PlanTerms(
        attempts,
        targets,
        known,
        known[0] if len(known) == 1 else None,
        tuple(one for one in attempts if _is_priced(one.target.price)),
        all(_is_priced(target.price) for target in targets),
        None if tiered else metering.ceiling([target.price for target in targets], 0),
        unseen,
        max(target.timeouts.total for target in targets) + LEASE_S,
        first,
        longest,
        cap,
        ((Extent(first, first, whole=True), stream), (covered, covered if unseen else stream)),
    )
