"""Limits and budgets as the operator states them, and what one call wants of them and holds.

A *quota* is all that one holder (a token, its tenant, a group of calls) may use.  A call counts against every quota
that applies to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from headgate.model.prices import Price

HARD, SOFT = "hard", "soft"
PERIODS = ("day", "month", "total")


class CallLimits(Struct, frozen=True, gc=False, omit_defaults=True):
    """Most requests and tokens in any minute, requests in a day (UTC), and calls at a time.  None: no limit."""

    rpm: int | None = None
    tpm: int | None = None
    rpd: int | None = None
    parallel: int | None = None


NO_LIMITS = CallLimits()


class Budget(Struct, frozen=True, gc=False, omit_defaults=True):
    """nano-USD per ``period`` (day | month | total), which begins at midnight in ``zone`` (an IANA name).

    ``mode``: hard (a call that it cannot pay is refused) | soft (counted and reported, never refused).
    """

    amount: int
    period: str = "month"
    mode: str = HARD
    zone: str = "UTC"


class Tenant(Struct, frozen=True, gc=False, omit_defaults=True):
    """Above its tokens: their calls count against its limits too.

    ``over_budget``: the alias that serves where the budget is spent; empty: the call is refused.
    """

    name: str
    limits: CallLimits = NO_LIMITS
    budget: Budget | None = None
    over_budget: str = ""


class CallGroup(Struct, frozen=True, omit_defaults=True):
    """One entry of ``budgets:``: a limit or a budget of all calls that match.

    ``id`` names its counters and must not change with its place in the list.  A call matches where it has all of
    ``tags`` (its ``headgate.metadata``), is of ``session``, and is served by ``model`` (provider/model, or a model's
    id); what is empty matches every call.
    """

    id: str
    tags: Mapping[str, str] = field(default_factory=dict)
    session: str = ""
    model: str = ""
    limits: CallLimits = NO_LIMITS
    budget: Budget | None = None


UNLIMITED = 1 << 62


class Quota(Struct, frozen=True, gc=False):
    """What one holder may use, ready to be compared; ``UNLIMITED`` where there is no limit.

    ``key`` names its counters in every store (``token:<id>``, ``tenant:<name>``, ``group:<id>``), ``holder`` its owner
    in messages.  ``model``: it counts only calls that this model serves; empty: all.
    """

    key: str
    holder: str
    rpm: int = UNLIMITED
    tpm: int = UNLIMITED
    rpd: int = UNLIMITED
    parallel: int = UNLIMITED
    budget: Budget | None = None
    model: str = ""

    @property
    def hard(self) -> bool:
        """A call that its budget cannot pay is refused."""
        return self.budget is not None and self.budget.mode == HARD


class Want(Struct, gc=False):
    """What a call wants to hold.

    ``owner``: the call's id, whose salt names the process.  ``output``: tokens of the answer that it wants covered now;
    where a hard budget cannot pay those, ``least`` of them will do.  ``price``: the highest of all targets that may
    serve; None: some target's is unknown.  ``lease_s``: after so many seconds the hold is given up, if it still stands.
    """

    owner: str
    quotas: tuple[Quota, ...]
    prompt: int
    output: int
    least: int
    price: Price | None
    lease_s: float


class Hold(Struct):
    """What admission has set aside for a running call: a lease, ended by ``Counters.settle``.

    ``reach``: completion tokens that it covers.  ``cost``: nano-USD, of the prompt and the reach.  ``expires``: Unix
    seconds; the holder may put it off.
    """

    owner: str
    prompt: int
    reach: int
    cost: int
    price: Price | None
    expires: float
