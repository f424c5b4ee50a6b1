"""What the data processes hold against accounts now, as accounts and providers are shown with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal, TypeVar

from pydantic import Field

from headgate.control.api.parts import Workers
from headgate.control.api.views import View
from headgate.control.telemetry.live import account_states
from headgate.policy.routing.explain import AccountStateView

State = Literal["probe", "cooling", "exhausted", "dead", "denied", "parked", "limited"]
Standings = dict[str, list["RestView"]]
V = TypeVar("V", bound=View)


class RestView(View):
    """Why an account is not used now.  ``model``: only that one of it; null: all of it."""

    model: str | None
    state: State
    wait_s: float | None = Field(description="Until its next chance; null: until something is done about it.")


async def standings(link: Workers) -> Standings:
    """By account; by the provider's name where it needs no key.  Of several data processes the longest rest counts.
    Empty where none answers.
    """
    worst: dict[tuple[str, str], AccountStateView] = {}
    for one in await account_states(link) or ():
        known = worst.get((one.account, one.model))
        if known is None or _length(one) > _length(known):
            worst[one.account, one.model] = one
    found: Standings = defaultdict(list)
    for one in worst.values():
        wait = None if one.wait_s is None else round(one.wait_s, 3)
        found[one.account].append(RestView(model=one.model or None, state=one.state, wait_s=wait))  # type: ignore[arg-type]
    return found


def rests(found: Standings, account: str) -> list[RestView]:
    """Of one account: what is of all of it first."""
    return sorted(found.get(account, ()), key=lambda rest: rest.model or "")


def whole(found: Iterable[RestView]) -> RestView | None:
    """What keeps all of an account from being used."""
    return next((rest for rest in found if rest.model is None), None)


def _length(one: AccountStateView) -> float:
    return float("inf") if one.wait_s is None else one.wait_s
