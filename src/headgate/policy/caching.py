"""Decide which calls use the response cache, under which key an answer is stored, and which answers are.

Pure: a call and its plan in, decisions out.  ``serving.replay`` keeps the answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

from headgate.model import Alias, Attempt, Call, Grant, Hold, Options, Plan, Target

LARGEST_REQUEST = 1 << 20  # bytes: a longer one is not looked up, because its members are put in order first
SOUND = frozenset(("stop", "length", "tool_calls", "function_call"))


class Caching(NamedTuple):
    """How one call uses the cache.  ``ttl_s``: how long its answer is stored, and how old a stored one may be."""

    ttl_s: float
    recorded: bool  # the pace of a stored stream: as it came, or at once


def decide(options: Options, alias: Alias) -> Caching | None:
    """Return how a call uses the cache; None: not at all.  The request's wish overrides its alias, value by value."""
    wish = options.cache
    enabled = alias.cache_enabled if wish is None else wish.enabled
    if not enabled:
        return None
    ttl_s = wish.ttl_s if wish is not None and wish.ttl_s is not None else alias.cache_ttl_s
    pace = wish.pace if wish is not None and wish.pace is not None else alias.cache_pace
    return Caching(ttl_s, pace == "recorded")


def is_cacheable(call: Call) -> bool:
    """False for a call whose answer is not the same each time (it has a conversation's state), has several choices, or
    whose request is too long.
    """
    return (
        call.prompt.choices == 1
        and "conversation" not in (call.body if call.native is None else call.native)
        and sum(map(len, call.body.values())) <= LARGEST_REQUEST
    )


def key(fingerprint: bytes, plan: Plan, grant: Grant, headers: Mapping[bytes, bytes]) -> bytes:
    """Return the key of the answers to a request with this fingerprint.

    Answers belong to a tenant, or to a token without one.  The targets stand in the key, with all that changes their
    requests: another chain, another boundary or another parameter of a model is another key.
    """
    owner = ("tenant", grant.tenant) if grant.tenant else ("token", grant.id)
    targets = {attempt.target.name: _identity(attempt.target, headers) for attempt in plan.attempts}
    return sha256(repr((owner, plan.requested, list(targets.values()), fingerprint)).encode()).digest()


def is_sound(finish: str, skipped: int, size: int, hold: Hold | None) -> bool:
    """True if a delivered answer may be told again.  ``size``: bytes of what there is to see."""
    shortened = finish == "length" and hold is not None and hold.cap > 0  # by what a budget could pay
    return finish in SOUND and not skipped and size > 0 and not shortened


def is_of(target: Target, attempts: tuple[Attempt, ...]) -> bool:
    """True if one of ``attempts`` asks this target."""
    return any(attempt.target is target for attempt in attempts)


def _identity(target: Target, headers: Mapping[bytes, bytes]) -> tuple[object, ...]:
    provider, row = target.provider, target.row
    forwarded = [headers.get(name.lower().encode()) for name in provider.forward_headers]
    edits = () if row is None else (sorted(row.param_defaults.items()), row.param_drop, sorted(row.param_map.items()))
    return (
        provider.name, provider.base_url, provider.dialect, provider.quirks, sorted(provider.headers.items()),
        target.upstream_model, edits, forwarded,
    )  # fmt: skip
