"""Tokens that a token's holder has made: what they may do now, and what a holder may wish for.  Pure.

The store keeps a child as it was made.  Data is told the child within its parent as that is now: a narrower parent
narrows its children, and without its parent a child is no token.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec.structs import replace

from headgate.catalog.money import nano
from headgate.control.refusals import TOO_MANY
from headgate.errors import INVALID_VALUE, MODEL_NOT_ALLOWED, SCOPE_MISSING, GatewayError
from headgate.model import Budget, Grant
from headgate.resources.callers.token import ChildWish

MAX_CHILDREN = 100  # of one token, at a time


def with_parents(tokens: Mapping[bytes, Grant]) -> Mapping[bytes, Grant]:
    """The tokens, with each child as its parent allows it, and without those that have none any more."""
    wanted = {grant.parent for grant in tokens.values() if grant.parent}
    if not wanted:
        return tokens
    parents: dict[str, Grant] = {}
    for grant in tokens.values():
        if grant.id in wanted and not grant.parent:
            known = parents.get(grant.id)
            if known is None or _end(known) < _end(grant):  # a rotated token is there twice; its new secret stays
                parents[grant.id] = grant
    return {
        digest: within(grant, parents[grant.parent]) if grant.parent else grant
        for digest, grant in tokens.items()
        if not grant.parent or grant.parent in parents
    }


def within(child: Grant, parent: Grant) -> Grant:
    """A child as its parent allows it."""
    models, scopes = child.models or parent.models, tuple(one for one in child.scopes if one in parent.scopes)
    if parent.models:
        models = tuple(name for name in models if name in parent.models)
        scopes = scopes if models else ()  # no models would mean all
    ends = [one.expires for one in (child, parent) if one.expires is not None]
    return replace(
        child,
        models=models,
        scopes=scopes,
        expires=min(ends, default=None),
        tenant=parent.tenant,
        over_budget=parent.over_budget,
        free_only=parent.free_only,
        priced_only=parent.priced_only,
        tier=parent.tier,
        tiers=parent.tiers,
    )


def wished(wish: ChildWish, parent: Grant, siblings: Collection[Grant], name: str, now: float) -> Grant:
    """The child that a holder wishes for.  Raises GatewayError where it may not have it."""
    if parent.parent:
        raise GatewayError(SCOPE_MISSING, "A child token cannot make tokens.")
    if len(siblings) >= MAX_CHILDREN:
        sentence = f"This token has {MAX_CHILDREN} children, which is the limit: delete one, or wait until one ends."
        raise GatewayError(TOO_MANY, sentence)
    if parent.models and (foreign := [one for one in wish.models or () if one not in parent.models]):
        sentence = f"This API key may not use {foreign[0]}, and no child of it may."
        raise GatewayError(MODEL_NOT_ALLOWED, sentence, param="models")
    if more := [one for one in wish.scopes or () if one not in parent.scopes]:
        raise GatewayError(SCOPE_MISSING, f"This API key lacks the scope {more[0]}.", param="scopes")
    budget = None
    if wish.budget_usd is not None:
        budget = Budget(nano(wish.budget_usd) or 0, "total")
        whole = parent.budget
        if whole is not None and whole.mode == "hard" and budget.amount > whole.amount:
            sentence = "`budget_usd` is more than the whole budget of this API key."
            raise GatewayError(INVALID_VALUE, sentence, param="budget_usd")
    child = Grant(
        "", name, tuple(wish.scopes or parent.scopes), tuple(wish.models or ()), now + wish.ttl_s,
        tenant=parent.tenant, limits=wish.limits.limits(), budget=budget, parent=parent.id, run=wish.run or "",
    )  # fmt: skip
    return replace(child, expires=within(child, parent).expires)


def _end(grant: Grant) -> float:
    return float("inf") if grant.expires is None else grant.expires
