"""What is written down about one call: when it was admitted, how far it came, how it ended.

Owns a call's timings and its lifecycle state, and writes its records.  Every exit of the exchange closes its receipt
exactly once.
"""

from __future__ import annotations

import time
from typing import cast

from headgate.model import (
    Attempt,
    AttemptRecord,
    Closed,
    Grant,
    Hold,
    ModelRow,
    Opened,
    Plan,
    Price,
    Progress,
    Seam,
    Share,
    Target,
    Usage,
)
from headgate.model.receipt_ids import first_of, salt_digits
from headgate.policy import lifecycle, metering
from headgate.policy.routing import explain
from headgate.ports import Asking
from headgate.serving.uplink.journal import Journal
from headgate.wire.codec import encode

_monotonic = time.monotonic


_METADATA = (
    b'{"provider":%b,"provider_model":%b,"latency_ms":%.3f,"ttft_ms":%.3f,"cost_usd":%b,"cost_basis":"%b",'
    b'"fallback_used":%b,"attempts":%d%b}'
)
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


class Receipt:
    """One call's.  Instants are monotonic seconds; 0.0 is "did not happen"."""

    # Defaults stand on the class: most calls set few of them, and setting twenty attributes is a microsecond.
    label = ""
    requested = ""
    opened = False
    plan: Plan | None = None
    hold: Hold | None = None
    grant: Grant | None = None
    target: Attempt | None = None
    meant: Target | None = None  # the first choice, whether or not it was well enough to be asked
    fell_back = False  # another target serves than the one that was meant to
    _skipped = 0  # events of this attempt's stream that could not be read
    _skips = False  # some attempt's stream had such events
    authed = routed = queued = connected = head = first_token = 0.0
    asked = 0.0  # when the attempt began whose phases these are: the one that brought the first token
    made = 0  # attempts that are over; probes are none
    answered_all = False  # the last attempt has delivered
    not_continued = ""  # of a stream that broke: why it could not go on
    _state = lifecycle.RECEIVED
    _started = 0.0
    _why = "first"
    _told: AttemptRecord | None = None  # the last attempt, as the route trace has it
    _wrote: list[tuple[Target, int]] | None = None  # completion tokens of the targets whose streams broke
    _priced: Usage | None = None  # what ``cost`` was last asked, and its answer
    _price: int | None = None

    def __init__(self, ids: Ids, prefix: str, journal: Journal, received: float) -> None:
        self.at = time.time_ns()
        self.id = ids.next(self.at)
        self.client_id = prefix + self.id  # as the client reads it
        self.received = received
        self.usage = Usage()
        self.attempts: list[AttemptRecord] = []
        self.continued: list[Seam] = []
        self._journal = journal

    @property
    def created(self) -> int:
        """Unix seconds, as OpenAI's ``created``."""
        return self.at // 1_000_000_000

    def open(self, plan: Plan, hold: Hold, stream: bool) -> None:
        """Admitted: from here on a crash leaves a lost call, not an unknown one."""
        self.step("admit")
        self.routed = _monotonic()
        self.plan = plan
        self.hold = hold
        self.usage.prompt = hold.prompt
        self.requested = plan.requested
        first = plan.attempts[0].target
        price = first.price
        self._write_opened(stream, first.provider.name, first.upstream_model, price.input, price.output)

    def _write_opened(
        self, stream: bool, provider: str, model: str, in_price: int | None, out_price: int | None
    ) -> None:
        self.opened = True
        self._journal.running += 1
        self._journal.write(
            Opened(
                self.id, self.at, self.grant.id if self.grant is not None else "", self.requested, stream,
                self.usage.prompt, self.label, -1 if in_price is None else in_price,
                -1 if out_price is None else out_price, provider, model,
            )
        )  # fmt: skip

    def step(self, event: str) -> None:
        self._state = lifecycle.TABLE[self._state, event]

    def begin(self, attempt: Attempt, why: str = "first") -> None:
        """One upstream request starts.  ``why`` as in model.AttemptRecord."""
        self.step("try")
        self.target = attempt
        self.fell_back = attempt.target is not self.meant and _differ(attempt.target, self.meant)
        self._why = why
        self._started = _monotonic()

    def end(self, status: int, code: str, own: Usage | None = None) -> None:
        """It is over: with an upstream's ``status`` (0: there was none) and our ``code`` (empty: delivered).

        ``own`` is what the attempt used, where that is not what the call used.
        """
        if self._started:
            told = self._told
            self.attempts.append(self._record(status, code, own) if told is None or code else told)
            self.made += 1
            self.answered_all = not code
            self._told = None
            self._started = 0.0
            if self._skipped:
                self.attempts[-1].skipped = self._skipped
                self._skipped = 0
                self._skips = not code or bool(self.first_token)  # else the client has nothing of this attempt

    def _record(self, status: int, code: str, own: Usage | None) -> AttemptRecord:
        attempt = self.target
        assert attempt is not None
        target = attempt.target
        account = attempt.account.id if attempt.account is not None else ""
        began, ended = int((self._started - self.received) * 1e6), int((_monotonic() - self.received) * 1e6)
        if own is None:
            return AttemptRecord(target.provider.name, target.upstream_model, account, status, code, began, ended)
        cost = metering.cost(own, target.price) if own.prompt or own.completion else None
        return AttemptRecord(
            target.provider.name, target.upstream_model, account, status, code, began, ended, self._why,
            own.prompt, own.completion, -1 if cost is None else cost,
        )  # fmt: skip

    def skip(self, events: int) -> None:
        """So many events of this attempt's stream could not be read: its answer may lack something."""
        self._skipped = events
        self._skips = True

    def probed(self, attempt: Attempt, status: int, code: str, began: float, own: Usage) -> None:
        """A request that only finds something out, for one token: it stands beside the attempts."""
        target, account = attempt.target, attempt.account
        cost = metering.cost(own, target.price) if own.prompt or own.completion else None
        self.attempts.append(
            AttemptRecord(
                target.provider.name, target.upstream_model, account.id if account is not None else "", status, code,
                self._us(began), self._us(_monotonic()), "prefill_probe", own.prompt, own.completion,
                -1 if cost is None else cost,
            )
        )  # fmt: skip

    def _us(self, instant: float) -> int:
        return int((instant - self.received) * 1e6)

    def metadata(self, usage: Usage) -> bytes:
        """The ``headgate`` object of an answer, as JSON: who served it, how long that took (ms), what ``usage`` costs
        (USD).
        """
        attempt = self.target
        assert attempt is not None
        now = _monotonic()
        cost = self.cost(usage)
        return _METADATA % (
            encode(attempt.target.provider.name),
            encode(attempt.target.upstream_model),
            (now - self.received) * 1e3,
            ((self.first_token or now) - self.received) * 1e3,
            b"null" if cost is None else b"%.9f" % (cost / 1e9),
            usage.basis.encode(),
            b"true" if self.fell_back else b"false",
            self.made + 1,
            b',"continued":%b' % encode([explain.seam_view(seam) for seam in self.continued])
            if self.continued
            else b"",
        )

    def trace(self, own: Usage) -> bytes:
        """The route trace, as JSON, of a call whose last attempt is about to deliver, or has: with ``own`` used."""
        last = cast(Attempt, self.target)
        if self._started:
            self._told = self._record(200, "", own)  # what the client reads is what is written down
            self._told.skipped = self._skipped
        return encode(
            {
                "requested_model": self.requested,
                "provider": last.target.provider.name,
                "model": last.target.upstream_model,
                "fallback_used": self.fell_back,
                "parameters": _edits(last.target.row),
                "candidates": [
                    {"provider": c.target.provider.name, "model": c.target.model, "reason": c.reason or None}
                    for c in (self.plan.candidates if self.plan is not None else ())
                ],
                "attempts": [
                    explain.attempt_view(one) for one in (*self.attempts, *((self._told,) if self._told else ()))
                ],
                **({"continued": [explain.seam_view(seam) for seam in self.continued]} if self.continued else {}),
            }
        )

    def carry(self, usage: Usage) -> None:
        """The client's stream broke with so much used; what follows is another attempt's, at its own price."""
        if self.target is None:
            return
        wrote = self._wrote = self._wrote or []
        wrote.append((self.target.target, max(0, usage.completion - sum(tokens for _, tokens in wrote))))
        self._priced = None

    def cost(self, usage: Usage) -> int | None:
        """nano-USD of a call that used so much, each target's part at its own price; None where one is unknown."""
        if usage is self._priced:
            return self._price
        if self.target is None:
            return 0
        self._priced = usage
        if self._wrote is None:
            self._price = metering.cost(usage, self.target.target.price)
        else:
            shares = [(target.price, tokens) for target, tokens in self._written(usage)]
            self._price = metering.shared_cost(usage, shares)
        return self._price

    def _written(self, usage: Usage) -> list[tuple[Target, int]]:
        """Who wrote how many of the call's completion tokens, in order."""
        left, found = usage.completion, []
        for target, tokens in self._wrote or ():
            found.append((target, min(left, tokens)))
            left -= found[-1][1]
        if self.target is not None and (left or not found):
            found.append((self.target.target, left))
        return found

    def _shares(self, usage: Usage, cost: int | None) -> tuple[Share, ...]:
        """The same by target, with what each part costs; nothing where one target wrote it all."""
        written = self._written(usage)
        first = written[0][0] if written else None
        by_target: dict[tuple[str, str], list[tuple[Price, int]]] = {}
        for target, tokens in written:
            if tokens or target is first:
                by_target.setdefault((target.provider.name, target.upstream_model), []).append((target.price, tokens))
        if len(by_target) < 2:
            return ()
        found: list[Share] = []
        for (provider, model), parts in by_target.items():
            used = usage if not found else Usage(0, 0)
            part = None if cost is None else metering.shared_cost(used, parts)
            tokens = sum(tokens for _, tokens in parts)
            found.append(Share(provider, model, used.prompt, tokens, -1 if part is None else part))
        if cost is not None:  # each was rounded: together they are what the call costs
            found[-1].cost += cost - sum(one.cost for one in found)
        return tuple(found)

    def _rest(self) -> Usage:
        """What the running attempt has used, as far as the call's own usage tells."""
        usage = self.usage
        wrote = sum(tokens for _, tokens in self._wrote or ())
        return Usage(0 if self._wrote else usage.prompt, max(0, usage.completion - wrote), basis=usage.basis)

    def answered(self, asking: Asking) -> None:
        """The upstream has answered: when the request went out, and when its head (or all of it) was here."""
        if self.first_token:
            return  # the phases are those of the attempt that brought it
        self.asked = self._started if self.attempts else self.routed
        self.queued = asking.queued
        self.connected = asking.connected
        self.head = _monotonic()

    def progress(self, completion_tokens: int) -> None:
        if self._journal.accepting:  # what room is left belongs to the closes
            self._journal.write(Progress(self.id, time.time_ns(), completion_tokens))

    def close(self, event: str, outcome: str, status: int, code: str, bytes_out: int = 0) -> None:
        """The call is over.  Written before the client's terminal event is sent."""
        following = lifecycle.TABLE[self._state, event]
        if self.grant is None or not (self.opened or self._journal.accepting):
            # Nobody to account it to, or a refusal that is not worth the room of running calls: it was counted.
            self._state = following
            return
        if not (event == "finish" or self.first_token or self._started or self.answered_all):
            self.usage = Usage()  # nothing has come of it; what an attempt has used all the same stands with it
        if self._skips and not code:
            code = EVENTS_SKIPPED
        if self._started:
            self.end(0, code, self._rest() if self.attempts else None)
        if not self.opened:
            self._write_opened(False, "", "", None, None)
        usage = self.usage
        provider = model = source = ""
        if self.target is not None:
            target = self.target.target
            provider, model, source = target.provider.name, target.upstream_model, target.price.source
        cost = self.cost(usage)
        duration = _monotonic() - self.received
        self._journal.write(
            Closed(
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
                self._shares(usage, cost) if self._wrote is not None else (),
            )
        )  # fmt: skip
        self._state = following  # only now: a record that could not be made leaves the call to ``give_up``
        self._journal.running -= 1

    def give_up(self, status: int, code: str) -> None:
        """After a bug of ours: closed as failed, without the figures that may have caused it."""
        if self._state in lifecycle.ENDS:
            return
        self.usage = Usage()
        self.attempts = []
        self._wrote = None
        self.close("fail" if self.opened else "refuse", "failed", status, code)


def _continued(seams: list[Seam]) -> bytes:
    return b',"continued":%b' % encode([explain.seam_view(seam) for seam in seams])


def _edits(row: ModelRow | None) -> dict[str, object] | None:
    """What the row of the target makes of the client's parameters, by name; None: nothing."""
    if row is None or not (row.param_defaults or row.param_drop or row.param_map):
        return None
    return {"default": list(row.param_defaults), "drop": list(row.param_drop), "map": dict(row.param_map)}


def _differ(target: Target, other: Target | None) -> bool:
    return other is not None and (target.provider.name, target.upstream_model) != (
        other.provider.name, other.upstream_model,
    )  # fmt: skip
