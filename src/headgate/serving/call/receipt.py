"""What is written down about one call: that it was admitted, how far it has come, how it ended.

Writes a call's records.  Every exit of the exchange closes its receipt exactly once.
"""

from __future__ import annotations

import time

from msgspec import Raw

from headgate.catalog.money import price_id
from headgate.errors import BUDGET_EXCEEDED
from headgate.model import (
    NOTHING,
    Call,
    Closed,
    Opened,
    Plan,
    Progress,
)
from headgate.model.receipt_ids import first_of, salt_digits
from headgate.policy import lifecycle, metering
from headgate.serving.call.running import RunningCall
from headgate.serving.uplink.journal import Journal
from headgate.wire.codec import as_text

_monotonic = time.monotonic

EVENTS_SKIPPED = "events_skipped"  # the code of a call that was delivered without what could not be read


class Ids:
    """Bare receipt ids, unique over all processes; ``model.receipt_ids`` says what their digits are."""

    def __init__(self, salt: int) -> None:
        self._salt = salt_digits(salt)
        self._count = 0
        self._millisecond = 0
        self._prefix = ""

    def next(self, now: int) -> str:
        """``now`` is Unix nanoseconds."""
        millisecond = now // 1_000_000
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._prefix = first_of(now) + self._salt
        self._count = count = (self._count + 1) & 0xFFFFFF
        return f"{self._prefix}{count:06x}"


class Receipt(RunningCall):
    """The records of one call, which it makes of what has been noted of it."""

    def __init__(self, ids: Ids, prefix: str, journal: Journal, received: float) -> None:
        at = time.time_ns()
        super().__init__(ids.next(at), prefix, at, received)
        self._journal = journal

    def open(self, plan: Plan, call: Call, session: bytes) -> None:
        """Admitted: from here on a crash leaves a lost call, not an unknown one."""
        self.step("admit")
        self.routed = _monotonic()
        self.plan = plan
        self.requested = plan.requested
        first = plan.attempts[0].target
        price = first.price
        grant, hold = self.grant, None if self.holding is None else self.holding.hold
        assert grant is not None
        self.opened = True
        self._journal.running += 1
        self._journal.write(
            Opened(
                self.id, self.at, grant.id, plan.requested, call.stream, self.prompt_tokens, self.label,
                -1 if price.input is None else price.input,
                -1 if price.output is None else price.output, first.provider.name, first.upstream_model,
                grant.tenant, 0 if hold is None else hold.cost, _named(session) if session else "",
                _named(call.prompt.user) if "user" in call.body else "", call.metadata,
            )
        )  # fmt: skip

    def _write_opened(self) -> None:
        """Of a call that is over before it was admitted."""
        grant = self.grant
        self.opened = True
        self._journal.running += 1
        self._journal.write(
            Opened(
                self.id, self.at, grant.id if grant is not None else "", self.requested, False, self.prompt_tokens,
                self.label, tenant=grant.tenant if grant is not None else "", hold=0,
            )
        )  # fmt: skip

    def progress(self, completion_tokens: int) -> None:
        if self._journal.accepting:  # what room is left belongs to the closes
            hold = None if self.holding is None else self.holding.hold
            self._journal.write(
                Progress(self.id, time.time_ns(), completion_tokens, hold.cost if hold is not None else 0)
            )

    def finish(self, bytes_out: int) -> None:
        """The client has the answer, or as much of it as its budget could pay."""
        if self.stopped:
            self.close("finish", BUDGET_EXCEEDED.code, 200, BUDGET_EXCEEDED.code, bytes_out)
        else:
            self.close("finish", "delivered", 200, "", bytes_out)

    def close(self, event: str, outcome: str, status: int, code: str, bytes_out: int = 0) -> None:
        """The call is over.  Written before the client's terminal event is sent."""
        served = self.target.target if self.target is not None else None
        if self.holding is not None:
            self.holding.settle(self.usage, self.cost or 0, served, self.prompt_tokens)
        following = lifecycle.TABLE[self._state, event]
        if self.grant is None or not (self.opened or self._journal.accepting):
            # Nobody to account it to, or a refusal that is not worth the room of running calls: it was counted.
            self._state = following
            return
        if self._skips and not code:
            code = EVENTS_SKIPPED
        if not self.opened:
            self._write_opened()
        usage = self.usage
        provider = model = source = price = ""
        if served is not None:
            provider, model, source = served.provider.name, served.upstream_model, served.price.source
            price = price_id(served.price)
        cost = self.cost
        duration = _monotonic() - self.received
        closed = Closed(
                self.id, self.at + int(duration * 1e9), outcome, status, code, provider, model,
                usage.prompt, usage.completion, usage.cached, usage.reasoning, usage.basis,
                -1 if cost is None else cost,
                int(duration * 1e6),
                int((self.queued - self.asked) * 1e6) if self.queued else -1,
                int((self.connected - self.queued) * 1e6) if self.connected else -1,
                int((self.head - self.connected) * 1e6) if self.head else -1,
                int((self.first_token - self.received) * 1e6) if self.first_token else -1,
                bytes_out,
                tuple(self.attempts), usage.cache_write, source,
                tuple(self.continued), self.not_continued,
                metering.shares_of(self._ended) if len(self._ended) > 1 else (), price, usage.details,
        )  # fmt: skip
        if self.cache is not None:
            self.cache.note(closed)
        self._journal.write(closed)
        self._state = following  # only now: a record that could not be made leaves the call to ``give_up``
        self._journal.running -= 1

    def give_up(self, status: int, code: str) -> None:
        """After a bug of ours: closed as failed, without the figures that may have caused it."""
        if self._state in lifecycle.ENDS:
            return
        self.usage, self.cost = NOTHING.delivered, 0
        self.attempts, self._ended = [], []
        if self._started:
            self.end(0, code, NOTHING)
        self.close("fail" if self.opened else "refuse", "failed", status, code)


def _named(value: bytes) -> str:
    """The client's name for something, from a header or as a JSON text."""
    text = as_text(Raw(value)) if value[:1] == b'"' else None
    return value.decode("utf-8", "replace") if text is None else text
