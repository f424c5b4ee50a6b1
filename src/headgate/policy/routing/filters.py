"""The reasons that exclude a target from a call: (target, Needs) → a reason, or an empty string.

A reason is ``code: sentence``.  An undeclared property excludes nothing: a row without capabilities may have them all.
Estimates exclude no target whose limit they exceed by less than a fifth.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from headgate.catalog.offers import known, ready
from headgate.errors import (
    CONTEXT_LENGTH,
    MODEL_NOT_ALLOWED,
    NO_PROVIDER_KEY,
    NO_QUALIFYING_MODEL,
    TIER_NOT_ALLOWED,
    GatewayError,
)
from headgate.model import FEATURES, Attempt, Call, Candidate, Grant, Options, Provider, Target, Usage
from headgate.policy import metering

TOLERANCE = 1.2
EXPECTED_OUTPUT = 1024  # tokens, of a call without a limit
MOST_NAMED = 12


class Needs(NamedTuple):
    """The requirements of one call.  ``prompt``: its estimated tokens."""

    prompt: int
    output: int | None
    features: tuple[str, ...]
    options: Options


def hold_tier(grant: Grant, tier: str | None) -> None:
    """Raise GatewayError (403) if a token's calls may not have the tier that one of them names."""
    if tier is not None and grant.tiers and tier not in grant.tiers:
        allowed = ", ".join(grant.tiers)
        sentence = f"the API key {grant.name!r} may not use the tier {tier}; it may use {allowed}"
        raise GatewayError(TIER_NOT_ALLOWED, sentence, param="headgate.tier")


def why_forbidden(grant: Grant, name: str, target: Target) -> str:
    """Return the reason, or an empty string.  A token that may use the requested ``name`` may use all its targets."""
    may = grant.models
    if not may or name in may or target.name in may or target.model in may:
        return ""
    return f"not_allowed: the API key {grant.name!r} may not use it"


def needs(call: Call) -> Needs:
    """Return the requirements of ``call``.  Reads through the messages once."""
    prompt = call.prompt
    return Needs(prompt.text_tokens, call.max_tokens, prompt.uses(FEATURES), call.options)


def missing_features(target: Target) -> tuple[str, ...]:
    """Return the features that a target declares not to have."""
    known = target.row.capabilities if target.row is not None else ()
    return tuple(name for name in FEATURES if name not in known) if known else ()


# ------------------------------------------------------------------------------------- why a target is not used


def why_never(target: Target, *, privacy: str, unpriced: str) -> str:
    """Return the reason that excludes a target from every call of an alias, or an empty string."""
    if not ready(target.provider):
        return f"no_key: {target.provider.name} has no key here"
    if unpriced == "refuse" and not known(target.price):
        return "price_unknown: its price is not known; give it one, or set unpriced: allow"
    return why_private(target.provider, privacy)


def why_not_for(grant: Grant, target: Target, attempts: Iterable[Attempt]) -> str:
    """Return the reason that excludes a target from every call of a token, or an empty string."""
    if grant.free_only and not any(is_free(attempt) for attempt in attempts):
        return "not_free: it is not free"
    if grant.priced_only and not known(target.price):
        return "price_unknown: its price is not known, and this API key pays for no such model"
    return ""


def is_free(attempt: Attempt) -> bool:
    """True if an attempt costs nothing: its model does, or its account is of a free plan."""
    price = attempt.target.price
    return (price.input == 0 and price.output == 0) or (attempt.account is not None and attempt.account.free)


def why_not(target: Target, wanted: Needs) -> str:
    """Return the reason that excludes a target from one call, or an empty string."""
    options = wanted.options
    if target.provider.name in options.excluded_providers:
        return f"excluded: {target.provider.name} is among excluded_providers"
    lacks = missing_features(target)
    missing = [name for name in wanted.features if name in lacks]
    if missing:
        return f"capability: it does not have {', '.join(missing)}"
    return (
        _why_too_long(target, wanted)
        or (why_private(target.provider, options.privacy) if options.privacy is not None else "")
        or _why_too_dear(target, wanted)
    )


def _why_too_long(target: Target, wanted: Needs) -> str:
    row = target.row
    if row is None:
        return ""
    output = wanted.output or 0
    if row.max_output is not None and output > row.max_output:
        return f"max_output: {output} tokens are asked for, it gives {row.max_output}"
    if row.context_window is not None and wanted.prompt + output > TOLERANCE * row.context_window:
        too_long = f"{wanted.prompt} tokens and {output} of output do" if output else f"{wanted.prompt} tokens does"
        return f"context_window: the prompt of about {too_long} not fit into {row.context_window}"
    return ""


def why_private(provider: Provider, privacy: str) -> str:
    """Return the reason why a call bound to ``privacy`` may not be sent to a provider, or an empty string."""
    if privacy == "any" or is_own(provider):  # a prompt that stays on the operator's machines trains no foreign model
        return ""
    if privacy == "own":
        return f"privacy: {provider.name} is not a machine of your own"
    if provider.training != "never":
        return f"privacy: {provider.name} is not known never to train on what it is sent"
    return ""


def is_own(provider: Provider) -> bool:
    """True if a provider is reached on this machine or in a private network."""
    if provider.origin in ("builtin", "detected"):
        return True
    host = (urlsplit(provider.base_url).hostname or "").rstrip(".")
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal", ".home.arpa", ".lan"))
    return (address.is_loopback or address.is_private) and not address.is_link_local


def _why_too_dear(target: Target, wanted: Needs) -> str:
    limit = wanted.options.max_cost
    if limit is None:
        return ""
    cost = expected_cost(target, wanted.prompt, wanted.output)
    if cost is None:
        return "price_unknown: max_cost_usd cannot be held where the price is not known"
    if cost > TOLERANCE * limit:
        return f"max_cost: about {cost / 1e9:.6f} USD, more than {limit / 1e9:.6f}"
    return ""


def expected_cost(target: Target, prompt: int, output: int | None) -> int | None:
    """Return the nano-USD that a call is expected to cost at a target; None if its price is not known."""
    most = target.row.max_output if target.row is not None else None
    if output is None:
        output = min(EXPECTED_OUTPUT, most) if most is not None else EXPECTED_OUTPUT
    return metering.cost(Usage(prompt, output), target.price)


# ------------------------------------------------------------------------------------- nothing is left


def nothing_left(quoted: str, holder: str, candidates: Iterable[Candidate]) -> GatewayError:
    """Return the error for a name, ``quoted``, that none of ``candidates`` may serve."""
    every = list(candidates)
    keyed = [one for one in every if _code(one) != "no_key"]
    if not keyed:
        names = ", ".join(dict.fromkeys(one.target.provider.name for one in every))
        first = every[0].target.provider.name
        return GatewayError(
            NO_PROVIDER_KEY,
            f"{quoted} is served by {names}, which has no key here; add one with: headgate vault add {first}",
        )
    allowed = [one for one in keyed if _code(one) not in ("not_allowed", "not_free")]
    if not allowed:
        why = "; it is for free models only" if any(_code(one) == "not_free" for one in keyed) else ""
        return GatewayError(MODEL_NOT_ALLOWED, f"the API key {holder!r} may not use {quoted}{why}", param="model")
    named = "; ".join(f"{one.target.name}: {_sentence(one)}" for one in every[:MOST_NAMED])
    if len(every) > MOST_NAMED:
        named += f"; and {len(every) - MOST_NAMED} more"
    if all(_code(one) == "context_window" for one in allowed):
        return GatewayError(CONTEXT_LENGTH, f"the prompt is too long for {quoted}: {named}", param="messages")
    return GatewayError(
        NO_QUALIFYING_MODEL, f"no target of {quoted} qualifies for this request: {named}", param="model"
    )


def _code(candidate: Candidate) -> str:
    return candidate.reason.partition(":")[0]


def _sentence(candidate: Candidate) -> str:
    return candidate.reason.partition(": ")[2]
