"""Tokens and money: what a call used, and what that costs.  The one place that rounds.

Both are folds of the call's ended attempts: its usage is the sum of what they delivered, and its cost the sum of what
their targets take for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from msgspec import Struct

from headgate.model import NOTHING, UNLIMITED, Price, Share, Target, Usage, Used

MILLION = 1_000_000
_HALF = MILLION // 2
TIER_MARGIN = 2  # by which factor an estimated prompt may be off, where that decides about the tier


class Ended(Struct, frozen=True):
    """One attempt that is over: the target that was asked, and what came of it."""

    target: Target
    used: Used


def usage_of(attempts: Iterable[Ended]) -> Usage:
    """Return what a call used: the sum of what its attempts delivered."""
    total: Usage | None = None
    for attempt in attempts:
        delivered = attempt.used.delivered
        if delivered != NOTHING.delivered:
            total = delivered if total is None else total.plus(delivered)
    return Usage() if total is None else total


def cost_of(attempts: Sequence[Ended]) -> int | None:
    """Return what a call costs (nano-USD): each target's part of the answer at its own price, the prompt at the first
    one's.  None where a price is unknown.
    """
    parts = [(target.price, tokens) for target, tokens in _written(attempts)]
    return shared_cost(usage_of(attempts), parts)


def shares_of(attempts: Sequence[Ended]) -> tuple[Share, ...]:
    """Return how much each target wrote of an answer that several did, and what that costs; of any other, nothing."""
    written = _written(attempts)
    by_target: dict[tuple[str, str], list[tuple[Price, int]]] = {}
    for target, tokens in written:
        if tokens or target is written[0][0]:
            by_target.setdefault((target.provider.name, target.upstream_model), []).append((target.price, tokens))
    if len(by_target) < 2:
        return ()
    usage, cost = usage_of(attempts), cost_of(attempts)
    found: list[Share] = []
    for (provider, model), parts in by_target.items():
        used = Usage(0, 0) if found else usage
        part = None if cost is None else shared_cost(used, parts)
        tokens = sum(tokens for _, tokens in parts)
        found.append(Share(provider, model, used.prompt, tokens, -1 if part is None else part))
    if cost is not None:  # each was rounded: together they are what the call costs
        found[-1].cost += cost - sum(one.cost for one in found)
    return tuple(found)


def _written(attempts: Iterable[Ended]) -> list[tuple[Target, int]]:
    """Return who wrote how many of the answer's tokens, in order.

    Where a later attempt's report shows that there are fewer than had been estimated, the first ones keep theirs.
    """
    left = usage_of(attempts).completion
    found: list[tuple[Target, int]] = []
    for attempt in attempts:
        delivered = attempt.used.delivered
        if delivered != NOTHING.delivered:
            tokens = min(left, max(0, delivered.completion))
            found.append((attempt.target, tokens))
            left -= tokens
    return found


def cost(usage: Usage, price: Price) -> int | None:
    """nano-USD, rounded half up once; None where a price that is needed is unknown, which is not the same as 0.

    ``usage.cached`` and ``cache_write`` are parts of ``usage.prompt``; where they have no price of their own they
    cost what input costs.  With tiers, the prompt's size decides which price holds for all of the call.  What came to
    nothing costs nothing, whatever its price.
    """
    total = _millionths(usage, price)
    return None if total is None else (total + MILLION // 2) // MILLION


def shared_cost(usage: Usage, shares: Sequence[tuple[Price, int]]) -> int | None:
    """As ``cost``, of an answer that several targets wrote: so many completion tokens each, in order.  The prompt is
    the first one's, at its price.
    """
    total = 0
    for index, (price, completion) in enumerate(shares):
        if index == 0:
            part = _millionths(_with(usage, completion), price)
        else:
            part = _millionths(Usage(0, completion), price, prompt=usage.prompt)
        if part is None:
            return None
        total += part
    return (total + MILLION // 2) // MILLION


def ceiling_cost(prompt: int, output: int, price: Price) -> int:
    """As ``cost``, at a ``ceiling``: of a prompt that nothing is known about."""
    return (prompt * price.input + output * price.output + _HALF) // MILLION  # type: ignore[operator]  # both known


def affordable(price: Price, prompt: int, most: int) -> int:
    """Return how many completion tokens ``most`` nano-USD buy behind so many prompt tokens, rounded down; -1: they do
    not buy the prompt.  ``price`` is a ``ceiling``.
    """
    left = most * MILLION - (_millionths(Usage(prompt, 0), price) or 0)
    if left < 0:
        return -1
    return left // price.output if price.output else UNLIMITED


def ceiling(prices: Iterable[Price], prompt: int) -> Price | None:
    """Return a price, without tiers, that no call of about so many prompt tokens exceeds, whichever of ``prices`` its
    parts are charged at.  None: one of them is unknown.
    """
    found: Price | None = None
    for price in prices:
        for tier in _near(price, prompt) if price.tiers else (price,):
            if tier.input is None or tier.output is None:
                return None
            dearest = max(tier.input, tier.cached_input or 0, tier.cache_write or 0)
            if found is None:
                found = tier if dearest == tier.input else Price(dearest, tier.output)
            elif dearest > (found.input or 0) or tier.output > (found.output or 0):
                found = Price(max(dearest, found.input or 0), max(tier.output, found.output or 0))
    return found


def _near(price: Price, prompt: int) -> Iterator[Price]:
    """The tiers that a prompt may turn out to have, where its size is an estimate."""
    smallest, largest = prompt // TIER_MARGIN, prompt * TIER_MARGIN
    if smallest <= price.tiers[0].above:
        yield Price(price.input, price.output, price.cached_input, price.cache_write)
    for tier, following in zip_longest(price.tiers, price.tiers[1:]):
        if largest > tier.above and (following is None or smallest <= following.above):
            yield _tier(price, tier.above + 1)


def _with(usage: Usage, completion: int) -> Usage:
    return Usage(usage.prompt, completion, usage.cached, usage.cache_write)


def _millionths(usage: Usage, price: Price, prompt: int = 0) -> int | None:
    """A millionth of a nano-USD each; ``prompt`` decides about the tier where it is larger than the usage's own."""
    if price.tiers:
        price = _tier(price, max(prompt, usage.prompt))
    if price.input is None or price.output is None:
        return None if usage.prompt or usage.completion else 0
    cached_price = price.input if price.cached_input is None else price.cached_input
    write_price = price.input if price.cache_write is None else price.cache_write
    fresh = max(0, usage.prompt - usage.cached - usage.cache_write)
    return (
        fresh * price.input
        + usage.cached * cached_price
        + usage.cache_write * write_price
        + usage.completion * price.output
    )


def _tier(price: Price, prompt: int) -> Price:
    """The price of a call with so many prompt tokens.  What a tier does not say stays as it is below it."""
    for tier in reversed(price.tiers):
        if prompt > tier.above:
            return Price(
                price.input if tier.input is None else tier.input,
                price.output if tier.output is None else tier.output,
                price.cached_input if tier.cached_input is None else tier.cached_input,
                price.cache_write if tier.cache_write is None else tier.cache_write,
            )
    return price
