"""Whether a request is hard: what the order of a computed ``auto`` depends on.

Told by what a call shows without being understood: how long it is, what it uses, how much it wants.  That is coarse on
purpose.  Reading it any better takes a model, and the two ways of being wrong are bearable: a simple request that is
taken for a hard one costs a little more, and a hard one that is taken for a simple one gets the answer that ``auto``
would have given without an order; whoever knows better names a model.  So each bound is where requests of the simple
kind (a question, a label, a short text) have ended for nearly all clients.

Strength is not known: no provider says it, and rankings age in weeks.  The list price stands in for it.  Within one
maker's models it has its order, and across makers it is the market's opinion.
"""

from __future__ import annotations

from math import inf

from headgate.model import AUTO, Alias, Call, Target
from headgate.policy.routing.filters import Needs, needs

COMPUTED = "auto"  # the strategy of an alias whose order is computed; nobody declares it
LONG_PROMPT = 4_000  # tokens: some pages; a chat's instructions and a few turns are shorter
LONG_OUTPUT = 4_096  # tokens: up to here clients set max_tokens by habit
LIGHT_EFFORTS = frozenset(("none", "minimal", "low"))  # who asks for any other effort asks for thought


def is_computed(alias: Alias) -> bool:
    """Whether ``alias`` is the ``auto`` that has been bound to what is there, and is given no other order."""
    return alias.name == AUTO and alias.why is not None and alias.strategy == "priority"


def is_hard(call: Call, wanted: Needs) -> bool:
    """Whether ``call``, which needs ``wanted``, is for the strongest rather than for the cheapest."""
    return (
        bool(wanted.features)  # tools, a schema to keep to, images, sound
        or wanted.prompt > LONG_PROMPT
        or (wanted.output or 0) > LONG_OUTPUT
        or (call.prompt.effort or "none") not in LIGHT_EFFORTS
        or call.prompt.has_code
    )


def describe(strategy: str, call: Call) -> str:
    """A strategy's name, for people: with what decides about ``call`` where its order is computed."""
    if strategy != COMPUTED:
        return strategy
    return f"{strategy} ({'hard' if is_hard(call, needs(call)) else 'simple'})"


def badness(target: Target, cost: int | None, *, hard: bool) -> float:
    """What targets are put in order by, the least first, for a call that is expected to ``cost`` so much there.

    Simple: what costs least; hard: whose list price is the highest.  What is not known comes last.
    """
    if not hard:
        return inf if cost is None else cost
    price = target.price
    return inf if price.input is None or price.output is None else -(price.input + price.output)
