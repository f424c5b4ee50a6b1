"""Tokens and money: what a call used, and what that costs.  The one place that rounds.

Both are folds of the call's ended attempts: its usage is the sum of what they delivered, and its cost the sum of what
their targets take for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from headgate.model import NOTHING, UNLIMITED, DetailRates, Price, PriceHours, Share, Target, TokenDetails, Usage, Used

MILLION = 1_000_000
_HALF = MILLION // 2
DAY_MINUTES = 24 * 60
NO_DETAILS = TokenDetails()
_RATES = ("input", "output", "cached_input", "cache_write")
TIER_MARGIN = 2  # by which factor an estimated prompt may be off, where that decides about the tier

T = TypeVar("T", bound=Struct)


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
    return None if total is None else (total + _HALF) // MILLION


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
    return (total + _HALF) // MILLION


def ceiling_cost(prompt: int, output: int, price: Price) -> int:
    """As ``cost``, at a ``ceiling``: of a prompt that nothing is known about."""
    return (prompt * price.input + output * price.output + _HALF) // MILLION  # type: ignore[operator]  # both known


def affordable(price: Price, prompt: int, most: int) -> int:
    """Return how many completion tokens ``most`` nano-USD buy behind so many prompt tokens, rounded down; -1: they do
    not buy the prompt.  ``price`` is a ``ceiling``.
    """
    left = most * MILLION - prompt * price.input  # type: ignore[operator]  # a ceiling's prices are known
    if left < 0:
        return -1
    return left // price.output if price.output else UNLIMITED


def ceiling(prices: Iterable[Price], prompt: int) -> Price | None:
    """Return a price, without tiers, that no call of about so many prompt tokens exceeds, whichever of ``prices`` its
    parts are charged at, at any hour.  None: one of them is unknown.
    """
    found: Price | None = None
    for price in prices:
        for tier in _any_time(price, prompt) if price.tiers or price.hours or price.details else (price,):
            if tier.input is None or tier.output is None:
                return None
            dearest = max(tier.input, tier.cached_input or 0, tier.cache_write or 0)
            if found is None:
                found = tier if dearest == tier.input else Price(dearest, tier.output)
            elif dearest > (found.input or 0) or tier.output > (found.output or 0):
                found = Price(max(dearest, found.input or 0), max(tier.output, found.output or 0))
    return found


def _any_time(price: Price, prompt: int) -> Iterator[Price]:
    """The tiers at every hour, each at its dearest kinds of tokens."""
    for one in (replace(price, hours=()), *(_in_hours(price, hours) for hours in price.hours)):
        for tier in _near(one, prompt) if one.tiers else (one,):
            rates = one.details
            if rates is None or tier.input is None or tier.output is None:
                yield Price(tier.input, tier.output, tier.cached_input, tier.cache_write)
            else:
                inputs = (tier.input, rates.cache_write_1h or 0, rates.audio_input or 0, rates.image_input or 0)
                outputs = (tier.output, rates.reasoning or 0, rates.audio_output or 0, rates.image_output or 0)
                yield Price(max(inputs), max(outputs), tier.cached_input, tier.cache_write)


def _near(price: Price, prompt: int) -> Iterator[Price]:
    """The tiers that a prompt may turn out to have, where its size is an estimate."""
    smallest, largest = prompt // TIER_MARGIN, prompt * TIER_MARGIN
    if smallest <= price.tiers[0].above:
        yield Price(price.input, price.output, price.cached_input, price.cache_write)
    for tier, following in zip_longest(price.tiers, price.tiers[1:]):
        if largest > tier.above and (following is None or smallest <= following.above):
            yield _tier(price, tier.above + 1)


def _with(usage: Usage, completion: int) -> Usage:
    reasoning = min(usage.reasoning, completion)
    return Usage(usage.prompt, completion, usage.cached, usage.cache_write, reasoning, usage.basis, usage.details)


def _millionths(usage: Usage, price: Price, prompt: int = 0) -> int | None:
    """A millionth of a nano-USD each; ``prompt`` decides about the tier where it is larger than the usage's own."""
    if price.tiers:
        price = _tier(price, max(prompt, usage.prompt))
    if price.input is None or price.output is None:
        return None if usage.prompt or usage.completion else 0
    cached_price = price.input if price.cached_input is None else price.cached_input
    write_price = price.input if price.cache_write is None else price.cache_write
    fresh = max(0, usage.prompt - usage.cached - usage.cache_write)
    total = (
        fresh * price.input
        + usage.cached * cached_price
        + usage.cache_write * write_price
        + usage.completion * price.output
    )
    return total if price.details is None else total + _beyond(usage, price, write_price)


class TokensByKind(NamedTuple):
    """A usage in kinds of which none is a part of another."""

    fresh: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    output: int
    reasoning: int
    audio_input: int
    image_input: int
    audio_output: int
    image_output: int


def tokens_by_kind(usage: Usage) -> TokensByKind:
    """Return ``usage`` by kind; they add up to its prompt and completion.

    A provider that reports more of a part than of the whole is not believed: parts are cut in the order of the fields.
    Audio and images that were read from the cache count as read from it.
    """
    details = usage.details or NO_DETAILS
    read = min(usage.cached, usage.prompt)
    written = min(usage.cache_write, usage.prompt - read)
    hour = min(details.cache_write_1h, written)
    fresh = usage.prompt - read - written
    heard = min(details.audio_input, fresh)
    seen = min(details.image_input, fresh - heard)
    reasoning = min(usage.reasoning, usage.completion)
    output = usage.completion - reasoning
    said = min(details.audio_output, output)
    drawn = min(details.image_output, output - said)
    return TokensByKind(
        fresh - heard - seen, read, written - hour, hour, output - said - drawn, reasoning, heard, seen, said, drawn
    )


def _beyond(usage: Usage, price: Price, write_price: int) -> int:
    """What the kinds with rates of their own cost more, or less, than those that they are parts of."""
    kinds, rates = tokens_by_kind(usage), price.details
    assert rates is not None and price.input is not None and price.output is not None
    total = 0
    for count, rate, usual in (
        (kinds.cache_write_1h, rates.cache_write_1h, write_price),
        (kinds.reasoning, rates.reasoning, price.output),
        (kinds.audio_input, rates.audio_input, price.input),
        (kinds.image_input, rates.image_input, price.input),
        (kinds.audio_output, rates.audio_output, price.output),
        (kinds.image_output, rates.image_output, price.output),
    ):
        if rate is not None:
            total += count * (rate - usual)
    return total


def price_at(price: Price, instant: float) -> Price:
    """Return what ``price`` is at this time of day (Unix seconds), without hours.  The first that hold do."""
    minute = int(instant) // 60 % DAY_MINUTES
    for hours in price.hours:
        if (minute - hours.start) % DAY_MINUTES < (hours.end - hours.start) % DAY_MINUTES:
            return _in_hours(price, hours)
    return replace(price, hours=())


def _in_hours(price: Price, hours: PriceHours) -> Price:
    rates = {name: getattr(hours, name) for name in _RATES if getattr(hours, name) is not None}
    percent = hours.percent

    def scaled(part: T) -> T:
        return replace(part, **{name: _percent(getattr(part, name), percent) for name in _scaled_of(part)})

    return replace(
        scaled(price),
        **rates,
        tiers=tuple(scaled(tier) for tier in price.tiers),
        details=None if price.details is None else scaled(price.details),
        hours=(),
    )


def _scaled_of(part: Struct) -> tuple[str, ...]:
    return DetailRates.__struct_fields__ if isinstance(part, DetailRates) else _RATES


def _percent(rate: int | None, percent: int) -> int | None:
    return None if rate is None else (rate * percent + 50) // 100


def _tier(price: Price, prompt: int) -> Price:
    """The price of a call with so many prompt tokens.  What a tier does not say stays as it is below it."""
    for tier in reversed(price.tiers):
        if prompt > tier.above:
            return Price(
                price.input if tier.input is None else tier.input,
                price.output if tier.output is None else tier.output,
                price.cached_input if tier.cached_input is None else tier.cached_input,
                price.cache_write if tier.cache_write is None else tier.cache_write,
                details=price.details,
            )
    return price
