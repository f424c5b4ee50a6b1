"""Limits and budgets as the operator states them, and what one call wants of them and holds.

A *quota* is all that one holder (a token, its tenant, a group of calls) may use.  A call counts against every quota
that applies to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from headgate.model.prices import Price

HARD = "hard"


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
    origin: str = "file"  # file | store


class CallGroup(Struct, frozen=True, omit_defaults=True):
    """One entry of ``budgets:``: a limit or a budget of all calls that match.

    ``id`` names its counters and must not change with its place in the list.  A call matches where it has all of
    ``tags`` (its ``headgate.metadata``), is of ``session``, for ``user``, and is served by ``model`` (provider/model,
    or a model's id); what is empty matches every call.
    """

    id: str
    tags: Mapping[str, str] = field(default_factory=dict)
    session: str = ""
    model: str = ""
    user: str = ""
    limits: CallLimits = NO_LIMITS
    budget: Budget | None = None
    origin: str = "file"  # file | store


UNLIMITED = 1 << 62


class Quota(Struct, frozen=True, gc=False):
    """What one holder may use, ready to be compared; ``UNLIMITED`` where there is no limit.

    ``key`` names its counters in every store (``token:<id>``, ``tenant:<name>``, ``group:<id>``), ``holder`` its owner
    in messages.  ``most``: nano-USD of a hard budget.  ``timed``: there is a limit per minute.  ``model``: only calls
    that this model serves count; empty: all.
    """

    key: str
    holder: str
    rpm: int = UNLIMITED
    tpm: int = UNLIMITED
    rpd: int = UNLIMITED
    parallel: int = UNLIMITED
    most: int = UNLIMITED
    timed: bool = False
    budget: Budget | None = None
    model: str = ""


class Quotas(Struct, frozen=True, gc=False):
    """All that a call counts against.  ``hard``: some budget must not be overrun; ``metered``: or its tokens count.

    ``plain``: the only one has a limit per minute and none per day.
    """

    each: tuple[Quota, ...] = ()
    hard: bool = False
    metered: bool = False
    plain: bool = False


NO_QUOTAS = Quotas()


class Extent(Struct, frozen=True, gc=False):
    """How much of an answer is to be held, in tokens.

    ``output``: what is to be covered now, out of ``longest`` that there may be.  Where a hard budget cannot pay that,
    fewer will do: at least ``least``, at most ``fewer``.  ``share``: the call takes one of so many parts of what is
    left, unless that is less than ``least``.  ``step``: of an extension.  ``whole``: the answer cannot be stopped
    midway.
    """

    output: int
    least: int
    longest: int = UNLIMITED
    fewer: int = UNLIMITED
    share: int = 1
    step: int = 1024
    whole: bool = False


class Want(Struct, gc=False):
    """What a call wants to hold.

    ``owner``: the call's id, whose salt names the process.  ``prompt``: its estimated tokens.  ``price``: the highest
    of all targets that may serve; None (unknown): no quota's budget is hard.  After ``lease_s`` seconds the hold is
    released, if it still stands.
    """

    owner: str
    quotas: Quotas
    prompt: int
    extent: Extent
    price: Price | None = None
    lease_s: float = 900.0


class LimitsLeft(Struct, gc=False):
    """What is left of the limits on requests and on tokens that are nearest to their end; all again in ``…_reset``
    whole seconds.  ``UNLIMITED``: there is no such limit.
    """

    requests: int = UNLIMITED
    requests_left: int = UNLIMITED
    requests_reset: int = 0
    tokens: int = UNLIMITED
    tokens_left: int = UNLIMITED
    tokens_reset: int = 0


class Hold(Struct):
    """What admission has set aside for a running call: a lease, ended by ``Counters.settle``.

    ``covered``: completion tokens that it pays for.  ``reach``: how many may have come before it has to be extended;
    ``UNLIMITED``: it covers all that there can be.  ``cap``: the ``max_tokens`` of an answer that cannot be stopped
    midway and may not be as long as asked; 0: none.  ``cost``: nano-USD of ``prompt`` and ``covered``.  ``expires``:
    Unix seconds, which its holder may put off.  ``left``: requests and tokens of the only quota, when it was given.
    ``parts``: what the counters that gave it know of it.
    """

    want: Want
    parts: Sequence[Any]
    taken: float
    expires: float
    covered: int
    cost: int
    reach: int = UNLIMITED
    cap: int = 0
    settled: bool = False
    left: tuple[int, int] | None = None


class QuotaUse(Struct, frozen=True, gc=False):
    """What one holder has used of its quota by now: nano-USD of its budget's period and of running calls, requests and
    tokens of the last minute, requests of the day (UTC), and running calls.  ``resets``: when the period ends, in Unix
    seconds; None: never, or there is no budget.
    """

    key: str
    spent: int = 0
    held: int = 0
    resets: float | None = None
    requests: int = 0
    tokens: int = 0
    today: int = 0
    running: int = 0


class Spent(Struct, frozen=True, gc=False):
    """What a holder (``Quota.key``) had used when the counters began anew.

    ``spent``: nano-USD since ``since`` (Unix seconds: the period's beginning).  ``today``: requests since midnight UTC
    of the day of ``at``.  ``recent``: (Unix seconds, requests, tokens) of the last minute, in order.
    """

    key: str
    at: float
    spent: int = 0
    since: float = 0.0
    today: int = 0
    recent: tuple[tuple[float, int, int], ...] = ()
