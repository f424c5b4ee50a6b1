"""What one holder has used: its requests and tokens of the last minute, its calls, its day and its money.

The minute is a sliding log, so that no minute, wherever it begins, has more than the limit (docs/decisions/012).  Its
instants are those of the calls; where there are many, neighbours share one.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec import Struct

from headgate.model import UNLIMITED, Quota, Spent
from headgate.policy.admission.periods import DAY_S, NEVER, period

MINUTE: Final = 60.0
MOST_ENTRIES = 1024  # from here on neighbours of less than SHARED_S share an entry: 1,624 at most
SHARED_S = 0.1

GONE = -1.0  # the instant of an entry that no longer counts


class Counted(Struct, gc=False):  # made in C, as all that a call makes
    """Requests and tokens that count from ``at`` on.  That moves on when a neighbour joins, at most SHARED_S."""

    at: float
    requests: int
    tokens: int
    began: float


class Meter:
    """One holder's.  ``until``: the next instant at which something here stops to count."""

    __slots__ = (
        "day_ends", "entries", "held", "period_ends", "quota", "requests", "running", "since", "spent", "today",
        "tokens", "until",
    )  # fmt: skip

    def __init__(self, quota: Quota, now: float) -> None:
        self.quota = quota
        self.entries: deque[Counted] = deque()
        self.requests = 0
        self.tokens = 0
        self.running = 0
        self.today = 0
        self.day_ends = now // DAY_S * DAY_S + DAY_S
        self.held = 0
        self.spent = 0
        self.since, self.period_ends = _period(quota, now)
        self.until = min(self.day_ends, self.period_ends, now + MINUTE)

    def adopt(self, quota: Quota, now: float) -> None:
        """The holder's quota has changed.  What was spent stays, also where the budget now has another period; without
        a budget nothing is.
        """
        before, self.quota = self.quota.budget, quota
        budget = quota.budget
        if budget is None:
            self.spent = 0
        if budget is None or before is None or (budget.period, budget.zone) != (before.period, before.zone):
            self.since, self.period_ends = _period(quota, now)
            self.until = min(self.until, self.period_ends)

    def restore(self, spent: Spent, now: float) -> None:
        """Add what was used before the counters began; calls may have been counted since."""
        self.catch_up(now)
        before = [Counted(min(at, now), requests, tokens, at) for at, requests, tokens in spent.recent]
        self.entries = deque(sorted([*before, *self.entries], key=_instant))
        self.requests += sum(entry.requests for entry in before)
        self.tokens += sum(entry.tokens for entry in before)
        self.today += spent.today if spent.at >= self.day_ends - DAY_S else 0
        if self.quota.budget is not None and spent.since >= self.since:
            self.spent += spent.spent
        self.catch_up(now)

    def catch_up(self, now: float) -> None:
        """Forget what no longer counts."""
        entries = self.entries
        oldest = now - MINUTE
        while entries and entries[0].at <= oldest:
            entry = entries.popleft()
            self.requests -= entry.requests
            self.tokens -= entry.tokens
            entry.at = GONE
        if now >= self.day_ends:
            self.today = 0
            self.day_ends = now // DAY_S * DAY_S + DAY_S
        if now >= self.period_ends:  # holds stay: what they become is spent in the period that they end in
            self.spent = 0
            self.since, self.period_ends = _period(self.quota, now)
        # What comes later than now counts for a minute from then on
        self.until = min(self.day_ends, self.period_ends, entries[0].at + MINUTE if entries else now + MINUTE)

    def rewind(self, now: float) -> None:
        """The clock was set back: nothing has happened later than now."""
        for entry in self.entries:
            entry.at = min(entry.at, now)
        self.day_ends = now // DAY_S * DAY_S + DAY_S
        self.since, self.period_ends = _period(self.quota, now)
        self.catch_up(now)

    def add(self, now: float, requests: int, tokens: int) -> Counted:
        """Count so much from now on."""
        entries = self.entries
        self.requests += requests
        self.tokens += tokens
        if len(entries) >= MOST_ENTRIES and now - entries[-1].began < SHARED_S:
            newest = entries[-1]
            newest.at = now
            newest.requests += requests
            newest.tokens += tokens
            return newest
        entry = Counted(now, requests, tokens, now)
        entries.append(entry)
        return entry

    def take_back(self, entry: Counted, requests: int, tokens: int) -> None:
        """Count so much of an entry no longer, if it still counts."""
        if entry.at != GONE:
            tokens = min(tokens, entry.tokens)
            entry.requests -= requests
            entry.tokens -= tokens
            self.requests -= requests
            self.tokens -= tokens

    def forget_newest(self) -> None:
        """Drop the newest entry, if nothing of it counts: no limit is waited for because of it."""
        entries = self.entries
        if entries and not entries[-1].requests and not entries[-1].tokens:
            entries.pop().at = GONE

    @property
    def room(self) -> int:
        """nano-USD that a call may still hold."""
        return max(0, self.quota.most - self.spent - self.held) if self.quota.most < UNLIMITED else UNLIMITED

    @property
    def idle(self) -> bool:
        """Whether a new one in its place would be the same."""
        return not (self.entries or self.running or self.held or self.spent or self.today)


def _instant(entry: Counted) -> float:
    return entry.at


def _period(quota: Quota, now: float) -> tuple[float, float]:
    budget = quota.budget
    return (0.0, NEVER) if budget is None else period(budget.period, budget.zone, now)
