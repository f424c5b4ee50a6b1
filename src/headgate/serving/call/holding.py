"""What one call holds of its limits and budgets, from its admission to its end."""

from __future__ import annotations

import time

from msgspec import Struct

from headgate.model import NOTHING, UNLIMITED, Attempt, Hold, Quotas, Usage
from headgate.policy.admission.calibration import EACH, Calibration
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

    def settle(self, usage: Usage, cost: int, served: Attempt | None, estimated: int) -> None:
        """The call is over.  ``estimated``: tokens of its prompt, as they were before its provider counted them."""
        hold = self.hold
        if hold is None:
            return
        target = served.target if served is not None else None
        self.counters.settle(hold, usage, cost, _now(), target)
        learnt = self.learnt
        learnt.calls = calls = learnt.calls + 1
        if (calls < EACH or not calls & 7) and target is not None and usage.basis == "provider":
            learnt.of(target).learn(estimated, usage.prompt)


class ReplayHolding(Holding):
    """Of a call that is answered from the response cache: it counts as a request, and uses nothing."""

    def settle(self, usage: Usage, cost: int, served: Attempt | None, estimated: int) -> None:
        if self.hold is not None:
            self.counters.settle(self.hold, NOTHING.delivered, 0, _now())
