"""Decide whether a request is hard: the order of a computed ``auto`` depends on it.

Only length, features and requested output count.  This is coarse on purpose: a better judgement takes a model.  Both
mistakes are bearable.  A simple request that is taken for a hard one costs a little more.  A hard one that is taken for
a simple one gets the answer that ``auto`` would have given without an order.  A client that knows better names a model.
So each bound lies above nearly all simple requests (a question, a label, a short text).

A model's strength is not known: no provider states it, and rankings age in weeks.  The list price is used instead.  It
orders the models of one maker; across makers it is the market's opinion.
"""

from __future__ import annotations

from math import inf

from headgate.model import AUTO, Alias, Call, Target
from headgate.policy.routing.filters import Needs, needs

COMPUTED = "auto"  # the strategy of an alias whose order is computed; it cannot be declared
LONG_PROMPT = 4_000  # tokens: some pages; a chat's instructions and a few turns are shorter
LONG_OUTPUT = 4_096  # tokens: up to here clients set max_tokens by habit
LIGHT_EFFORTS = frozenset(("none", "minimal", "low"))  # any other effort asks for reasoning


def is_computed(alias: Alias) -> bool:
    """True if ``alias`` is the shipped ``auto``, without an order of its own."""
    return alias.name == AUTO and alias.why is not None and alias.strategy == "priority"


def is_hard(call: Call, wanted: Needs) -> bool:
    """True if ``call``, which needs ``wanted``, is for the strongest target rather than the cheapest."""
    return (
        bool(wanted.features)  # tools, a schema, images, sound
        or wanted.prompt > LONG_PROMPT
        or (wanted.output or 0) > LONG_OUTPUT
        or (call.prompt.effort or "none") not in LIGHT_EFFORTS
        or call.prompt.has_code
    )


def describe(strategy: str, call: Call) -> str:
    """Return a strategy's name for people; of a computed order with the class of ``call``: ``auto (hard)``."""
    if strategy != COMPUTED:
        return strategy
    return f"{strategy} ({'hard' if is_hard(call, needs(call)) else 'simple'})"


def badness(target: Target, cost: int | None, *, hard: bool) -> float:
    """Return the sort key of a target, the least first, for a call that is expected to ``cost`` this many nano-USD
    there.

    Simple calls: the lowest cost; hard ones: the highest list price.  An unknown figure comes last.
    """
    if not hard:
        return inf if cost is None else cost
    price = target.price
    return inf if price.input is None or price.output is None else -(price.input + price.output)
