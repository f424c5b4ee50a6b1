"""An account's own terms: how many requests it may serve within a minute and a UTC day, until when, and its spend.

Counts what this process has sent; a restart forgets it.  An account that has reached a limit is passed over until the
limit's window lets a request go; nothing has to be probed then.  ``now`` is monotonic seconds, ``epoch`` makes Unix
seconds of it.
"""

from __future__ import annotations

from collections import deque
from math import inf

from msgspec import Struct

from headgate.model import Account
from headgate.model.bounded import Bounded

MAX_REMEMBERED = 4096
DAY_S = 86_400
WINDOW_S = 61  # of whole seconds: no minute, wherever it begins, has more requests than the limit

EXPIRED, OVERSPENT, LIMITED = "expired", "overspent", "limited"
FOR_GOOD = (EXPIRED,)  # until something is done about it


class Use(Struct, gc=False):
    """What an account has served: in each of the last seconds, in all of them, and in a UTC day."""

    account: Account  # as it was when it served last
    seconds: deque[list[int]]
    in_minute: int = 0
    day: int = 0
    in_day: int = 0


class AccountLimits:
    """By account id, of accounts with limits alone."""

    __slots__ = ("_uses", "epoch")

    def __init__(self) -> None:
        self.epoch = 0.0  # Unix seconds at monotonic 0
        self._uses: Bounded[str, Use] = Bounded(MAX_REMEMBERED)

    def count(self, account: Account, now: float) -> None:
        """A request is sent with it."""
        use = self._uses.get(account.id)
        if use is None:
            use = Use(account, deque())
            self._uses.put(account.id, use)
        second, day = int(now), int((now + self.epoch) // DAY_S)
        self._forget(use, now)
        if use.seconds and use.seconds[-1][0] == second:
            use.seconds[-1][1] += 1
        else:
            use.seconds.append([second, 1])
        use.account = account
        use.in_minute += 1
        if day != use.day:
            use.day, use.in_day = day, 0
        use.in_day += 1

    def why_out(self, account: Account, now: float) -> tuple[str, float] | None:
        """Return why its own terms keep it from being used, and until when (monotonic seconds); None: they do not."""
        unix = now + self.epoch
        if account.expires is not None and unix >= account.expires:
            return EXPIRED, inf
        if account.paused_until > unix:
            return OVERSPENT, account.paused_until - self.epoch
        use = self._uses.get(account.id)
        if use is None:
            return None
        if account.daily_limit is not None and use.day == unix // DAY_S and use.in_day >= account.daily_limit:
            return LIMITED, (use.day + 1) * DAY_S - self.epoch
        if account.minute_limit is not None:
            self._forget(use, now)
            if use.in_minute >= account.minute_limit:
                return LIMITED, float(use.seconds[0][0] + WINDOW_S)
        return None

    def limited(self, now: float) -> list[tuple[str, float]]:
        """Return the accounts that have reached a limit, and until when each is out (monotonic seconds)."""
        outs = [(use.account.id, self.why_out(use.account, now)) for use in self._uses.values()]
        return [(ident, out[1]) for ident, out in outs if out is not None and out[0] == LIMITED]

    def _forget(self, use: Use, now: float) -> None:
        """The seconds that are no part of the last minute any more."""
        while use.seconds and use.seconds[0][0] + WINDOW_S <= now:
            use.in_minute -= use.seconds.popleft()[1]
