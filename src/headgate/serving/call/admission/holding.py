"""What one call holds of its limits and budgets, from its admission to its end."""

from __future__ import annotations

import time

from msgspec import Struct

from headgate.model import NOTHING, UNLIMITED, Hold, Quotas, Target, Usage
from headgate.policy.admission.calibration import Calibration
from headgate.ports import Counters
from headgate.wire import rate_limits

_now = time.time


class Holding(Struct):  # made in C, once a call
    """One call's.  ``hold`` is None while it has not been admitted, and of a call that is refused."""

    counters: Counters
    quotas: Quotas
    learnt: Calibration
    hold: Hold | None = None

    def fields(self) -> bytes:
        """Return the header lines that say what is left of the limits: when the call was admitted, else now."""
        hold = self.hold
        if hold is not None and hold.left is not None:
            return rate_limits.fields_at_once(self.quotas.each[0], *hold.left)
        return rate_limits.fields_of(self.counters.standing(self.quotas, _now()))

    @property
    def is_extended(self) -> bool:
        """True if a stream has to ask for more before it ends."""
        return self.hold is not None and self.hold.reach < UNLIMITED

    def extend_to_size(self, size: int, tokens: int) -> int:
        """Return the size of the text (bytes) at which to ask again, at ``tokens`` now; 0: the answer ends here.

        Until then no estimate comes to more tokens than are held: see ``dialects.tally``.
        """
        hold = self.hold
        if hold is None:
            return UNLIMITED
        reach = self.counters.extend(hold, tokens, _now())
        if reach == 0 or reach == UNLIMITED:
            return reach
        return size + max(1, (reach - tokens) * 8 // 5)  # a token has 1.6 bytes at least

    def cancel(self) -> None:
        """The call does not run yet: its hold is given back."""
        if self.hold is not None:
            self.counters.cancel(self.hold)
            self.hold = None

    def settle(self, usage: Usage, cost: int, served: Target | None, estimated: int) -> None:
        """The call is over.  ``estimated``: tokens of its prompt, as they were before its provider counted them."""
        hold = self.hold
        if hold is None:
            return
        self.counters.settle(hold, usage, cost, _now(), served)
        learnt = self.learnt
        if learnt.skipped:
            learnt.skipped -= 1
        elif served is not None and usage.basis == "provider":
            learnt.learn(served, estimated, usage.prompt)


class ReplayHolding(Holding):
    """Of a call that is answered from the response cache: it counts as a request, and uses nothing."""

    def settle(self, usage: Usage, cost: int, served: Target | None, estimated: int) -> None:
        if self.hold is not None:
            self.counters.settle(self.hold, NOTHING.delivered, 0, _now())
