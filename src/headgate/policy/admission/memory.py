"""Counters of one process, in its memory: what is used, and what is held.

All mutable state is ``_meters`` and ``_open``.  A call that one of its quotas does not admit is taken back from the
others at once: a refused call leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, final

from msgspec import Struct

from headgate.model import UNLIMITED, Hold, LimitsLeft, Quota, Quotas, QuotaUse, Spent, Target, Usage, Want
from headgate.policy import metering
from headgate.policy.admission import refusals
from headgate.policy.admission.meters import GONE, MINUTE, MOST_ENTRIES, Counted, Meter
from headgate.policy.admission.periods import DAY_S, NEVER
from headgate.policy.admission.quotas import is_model

LEAST_STEP: Final = 64  # tokens: an extension by fewer is none, but for the end of an answer
SWEPT = 256  # meters that one sweep looks at


class Portion(Struct):
    """A hold's share of one meter.  ``tokens`` of the last minute are its own, the newest of them in ``entry``; its
    request is in ``first``, where that is another.
    """

    quota: Quota
    meter: Meter
    tokens: int = 0
    entry: Counted | None = None
    first: Counted | None = None


@final
class MemoryCounters:
    """See ports.Counters.  Counts every instruction: this is on the way of every call that has a limit."""

    def __init__(self) -> None:
        self.restored = False
        self.freed: Callable[[Quotas], None] | None = None
        self._meters: dict[str, Meter] = {}
        self._open: dict[str, Hold] = {}
        self._unswept: list[str] = []
        self._now = 0.0

    def take(self, want: Want, now: float) -> Hold:
        extent, price = want.extent, want.price
        covered = extent.output
        cost = 0 if price is None else metering.ceiling_cost(want.prompt, covered, price)
        tokens = want.prompt + extent.least
        parts: list[Portion] = []
        for quota in want.quotas.each:
            meter = self._meters.get(quota.key) or self._meter(quota, now)
            if meter.quota is not quota:
                meter.adopt(quota, now)
            if now >= meter.until:
                meter.catch_up(now)
            if (
                meter.requests >= quota.rpm
                or meter.running >= quota.parallel
                or meter.today >= quota.rpd
                or meter.tokens + tokens > quota.tpm
                or meter.spent + meter.held + cost * extent.share > quota.most
            ):
                _take_back(parts, now, cost)
                covered, cost, parts = self._fit(want, now)
                break
            meter.running += 1
            meter.today += 1
            meter.held += cost
            entry = None
            if quota.timed:  # as ``Meter.add``, in line
                entries = meter.entries
                if len(entries) < MOST_ENTRIES:
                    meter.requests += 1
                    meter.tokens += tokens
                    entry = Counted(now, 1, tokens, now)
                    entries.append(entry)
                else:
                    entry = meter.add(now, 1, tokens)
            parts.append(Portion(quota, meter, tokens, entry))
        hold = Hold(want, parts, now, now + want.lease_s, covered, cost)
        if want.quotas.plain:
            hold.left = quota.rpm - meter.requests, quota.tpm - meter.tokens
        if covered < extent.longest:
            if extent.whole:
                hold.cap = covered if covered < extent.output else 0
            elif want.quotas.metered:
                hold.reach = covered
        self._open[want.owner] = hold
        return hold

    def extend(self, hold: Hold, tokens: int, now: float) -> int:
        if tokens < hold.reach:
            return hold.reach
        want, price = hold.want, hold.want.price
        longest = want.extent.longest
        if hold.settled or tokens >= longest:
            return UNLIMITED  # there is nothing to hold: its upstream has its own end, or it has ended
        if want.owner not in self._open:
            self._rejoin(hold, now)
            self._open[want.owner] = hold
        covered = min(tokens + want.extent.step, longest)
        if price is not None:
            room = min((self._room(part, now) for part in hold.parts), default=UNLIMITED)
            if room < UNLIMITED:
                payable = metering.affordable(price, want.prompt, hold.cost + room)
                if payable < covered and payable - tokens < LEAST_STEP:
                    return 0
                covered = min(covered, payable)
        more = (0 if price is None else metering.ceiling_cost(want.prompt, covered, price)) - hold.cost
        for part in hold.parts:
            part.meter.held += more
            if part.quota.timed:
                part.tokens += covered - hold.covered
                part.first = part.first or part.entry
                part.entry = part.meter.add(now, 0, covered - hold.covered)
        hold.cost += more
        hold.covered = covered
        hold.reach = covered if covered < longest else UNLIMITED
        hold.expires = max(hold.expires, now + want.lease_s)
        return hold.reach

    def settle(self, hold: Hold, used: Usage, cost: int, now: float, served: Target | None = None) -> None:
        if hold.settled:
            return
        hold.settled = True
        if self._open.pop(hold.want.owner, None) is None:
            self._rejoin(hold, now)
        tokens = used.prompt + used.completion
        for part in hold.parts:
            quota, meter, entry = part.quota, part.meter, part.entry
            if now >= meter.until:
                meter.catch_up(now)
            meter.running -= 1
            meter.held -= hold.cost
            if quota.model and (served is None or not is_model(served, quota.model)):
                _uncount(part, hold.taken)
                continue
            if quota.budget is not None:
                meter.spent += cost
            if entry is None:
                continue
            surplus = part.tokens - tokens
            if surplus > 0:
                if surplus <= entry.tokens and entry.at != GONE:
                    entry.tokens -= surplus
                    meter.tokens -= surplus
                else:
                    meter.take_back(entry, 0, surplus)
            elif surplus < 0:  # used by now, whenever
                meter.add(now, 0, -surplus)
        if self.freed is not None:
            self.freed(hold.want.quotas)

    def cancel(self, hold: Hold) -> None:
        if not hold.settled:
            hold.settled = True
            del self._open[hold.want.owner]
            _take_back(hold.parts, hold.taken, hold.cost)

    def sweep(self, now: float) -> int:
        """Release the holds whose leases have expired; return their number.  Forget some of what no longer counts."""
        if now < self._now - 1.0:  # the clock was set back
            for meter in self._meters.values():
                meter.rewind(now)
        self._now = now
        expired = [hold for hold in self._open.values() if hold.expires <= now]
        for hold in expired:
            del self._open[hold.want.owner]
            for part in hold.parts:
                part.meter.running -= 1
                part.meter.held -= hold.cost
            if self.freed is not None:
                self.freed(hold.want.quotas)
        self._unswept = self._unswept or list(self._meters)
        for key in self._unswept[-SWEPT:]:
            seen = self._meters.get(key)
            if seen is not None:
                seen.catch_up(now)
                if seen.idle:
                    del self._meters[key]
        del self._unswept[-SWEPT:]
        return len(expired)

    def restore(self, spents: Iterable[Spent], quotas: Iterable[Quota], now: float) -> None:
        """Add what was used before: ``quotas`` are those whose keys ``spents`` name.  ``restored`` is the caller's."""
        known = {quota.key: quota for quota in quotas}
        for spent in spents:
            if spent.key in known:
                self._meter(known[spent.key], now).restore(spent, now)

    # ------------------------------------------------------------------------------------- what is left

    def standing(self, quotas: Quotas, now: float) -> LimitsLeft:
        found = LimitsLeft()
        for one in (self._standing(quota, now) for quota in quotas.each):
            if one.requests_left < found.requests_left:
                found.requests, found.requests_left = one.requests, one.requests_left
                found.requests_reset = one.requests_reset
            if one.tokens_left < found.tokens_left:
                found.tokens, found.tokens_left, found.tokens_reset = one.tokens, one.tokens_left, one.tokens_reset
        return found

    def _standing(self, quota: Quota, now: float) -> LimitsLeft:
        meter = self._known(quota, now)
        if now >= meter.until:
            meter.catch_up(now)
        entries, limit = meter.entries, quota.rpm
        # At most a minute, also where the clock has been set back a little
        reset = until = min(60, int(entries[-1].at + (MINUTE + 0.999) - now)) if entries else 0
        left, today = limit - meter.requests, quota.rpd - meter.today
        if today < left:
            limit, left, until = quota.rpd, today, int(meter.day_ends + 0.999 - now)
        return LimitsLeft(limit, left, until, quota.tpm, quota.tpm - meter.tokens, reset)

    def use(self, quota: Quota, now: float) -> QuotaUse:
        meter = self._meter(quota, now)
        meter.catch_up(now)
        resets = None if quota.budget is None or meter.period_ends == NEVER else meter.period_ends
        return QuotaUse(
            quota.key, meter.spent, meter.held, resets, meter.requests, meter.tokens, meter.today, meter.running
        )

    # ------------------------------------------------------------------------------------- meters

    def _meter(self, quota: Quota, now: float) -> Meter:
        meter = self._meters.get(quota.key)
        if meter is None:
            meter = self._meters[quota.key] = Meter(quota, now)
        else:
            meter.adopt(quota, now)
        return meter

    def _known(self, quota: Quota, now: float) -> Meter:
        meter = self._meters.get(quota.key)
        return self._meter(quota, now) if meter is None else meter

    def _rejoin(self, hold: Hold, now: float) -> None:
        """The lease has expired, and its meters may have been forgotten since: count it as running again."""
        for part in hold.parts:
            part.meter = self._known(part.quota, now)
            part.meter.running += 1
            part.meter.held += hold.cost

    def _fit(self, want: Want, now: float) -> tuple[int, int, list[Portion]]:
        """Take a hold that may have to be smaller than wanted: return the completion tokens that it covers, its cost
        and its parts.  Raises GatewayError (402, 429).
        """
        meters = [self._meter(quota, now) for quota in want.quotas.each]
        for meter in meters:
            meter.catch_up(now)
        covered = _covered(want, meters, now)
        cost = 0 if want.price is None else metering.ceiling_cost(want.prompt, covered, want.price)
        parts = []
        for meter in meters:
            quota = meter.quota
            weight = min(want.prompt + want.extent.least, quota.tpm)
            meter.running += 1
            meter.today += 1
            meter.held += cost
            parts.append(Portion(quota, meter, weight, meter.add(now, 1, weight) if quota.timed else None))
        return covered, cost, parts

    def _room(self, part: Portion, now: float) -> int:
        if now >= part.meter.until:
            part.meter.catch_up(now)
        return part.meter.room


def _uncount(part: Portion, taken: float) -> None:
    """Count the request and the tokens of a call that was admitted at ``taken`` no longer."""
    meter, entry = part.meter, part.entry
    meter.today -= taken >= meter.day_ends - DAY_S
    if entry is not None:
        meter.take_back(part.first or entry, 1, 0)
        meter.take_back(entry, 0, part.tokens)


def _take_back(parts: Iterable[Portion], taken: float, cost: int) -> None:
    """Undo what has just been counted."""
    for part in parts:
        part.meter.running -= 1
        part.meter.held -= cost
        _uncount(part, taken)
        part.meter.forget_newest()


def _covered(want: Want, meters: list[Meter], now: float) -> int:
    """The completion tokens that the hold can cover, if not all that are wanted.  Raises GatewayError (402, 429)."""
    extent, price = want.extent, want.price
    covered = extent.output
    if price is not None and metering.ceiling_cost(want.prompt, covered, price):
        meter = min(meters, key=_room_of)
        room = meter.room
        if metering.ceiling_cost(want.prompt, covered, price) * extent.share > room:
            least = min(extent.least, covered)
            payable = metering.affordable(price, want.prompt, room)
            if payable < least:
                raise refusals.over_budget(meter, metering.ceiling_cost(want.prompt, least, price))
            part = metering.affordable(price, want.prompt, room // extent.share)
            covered = max(least, min(part, payable, extent.output))
            if covered < extent.output:
                covered = max(least, min(covered, extent.fewer))
    refused = refusals.over_limit(want, meters, now)
    if refused is not None:
        raise refused
    return covered


def _room_of(meter: Meter) -> int:
    return meter.room
