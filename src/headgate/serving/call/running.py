"""One call as it runs: its attempts, what they have used, and when each of its phases began.

Owns a call's timings and its lifecycle state.  The exchange and its parts note here how far a call has come;
``receipt`` writes that down.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from msgspec.structs import replace

from headgate.model import (
    NOTHING,
    Attempt,
    AttemptRecord,
    Grant,
    ModelRow,
    Plan,
    SeamRecord,
    Target,
    Usage,
    Used,
)
from headgate.policy import lifecycle, metering
from headgate.policy.metering import Ended
from headgate.policy.routing import explain
from headgate.ports import Asking
from headgate.serving.call.admission.holding import Holding
from headgate.serving.replay.answers import CacheUse
from headgate.wire.codec import encode
from headgate.wire.http import visible

_monotonic = time.monotonic

_METADATA = (
    b'{"provider":%b,"provider_model":%b,"latency_ms":%.3f,"ttft_ms":%.3f,"cost_usd":%b,"cost_basis":"%b",'
    b'"cache_hit":false,"fallback_used":%b,"attempts":%d%b}'
)
_OF_REPLAY = _METADATA.replace(b'"cache_hit":false', b'"cache_hit":true')


class RunningCall:
    """Instants are monotonic seconds; 0.0 is "did not happen".

    ``usage`` and ``cost`` (nano-USD; None: unknown) are folds of the attempts that have ended: see ``policy.metering``.
    """

    # Defaults stand on the class: most calls set few of them, and setting twenty attributes is a microsecond.
    label = ""
    requested = ""
    opened = False
    plan: Plan | None = None
    grant: Grant | None = None
    target: Attempt | None = None  # of the last attempt that has begun
    meant: Target | None = None  # the first choice, whether or not it was well enough to be asked
    fell_back = False  # another target serves than the one that was meant to
    prompt_tokens = 0  # estimated
    usage = NOTHING.delivered
    cost: int | None = 0
    number = 1  # of the attempt that runs, or will; probes are none
    answered_all = False  # the last attempt has delivered
    authed = routed = queued = connected = head = first_token = 0.0
    waited = 0.0  # seconds in the queue of its alias
    asked = 0.0  # when the attempt began whose phases these are: the one that brought the first token
    passed_over: Mapping[str, str] | None = None  # accounts that their own terms kept from being used: why
    not_continued = ""  # of a stream that broke: why it could not go on
    cache: CacheUse | None = None  # how it uses the response cache
    holding: Holding | None = None  # the limits and budgets that it counts against
    fields = b""  # of the last attempt: header lines for the client, of its answer and of what it was not sent
    dropped: tuple[str, ...] = ()  # members of the request that the last attempt's target could not be sent
    stopped = False  # its budget could not pay for more of the answer
    _metadata = _METADATA
    _skips = False  # the client has an answer without events that could not be read
    _state = lifecycle.RECEIVED
    _started = 0.0  # of the attempt that runs
    _why = "first"

    def __init__(self, ident: str, prefix: str, at: int, received: float) -> None:
        """``ident`` is its bare receipt id, ``prefix`` that of its client's API.  ``at``: Unix nanoseconds."""
        self.at = at
        self.id = ident
        self.client_id = prefix + ident  # as the client reads it
        self.received = received
        self.attempts: list[AttemptRecord] = []
        self.continued: list[SeamRecord] = []
        self._ended: list[Ended] = []

    @property
    def created(self) -> int:
        """Unix seconds, as OpenAI's ``created``."""
        return self.at // 1_000_000_000

    @property
    def admitted(self) -> bool:
        """True if no limit or budget stands in its way, or none applies."""
        return self.holding is None or self.holding.hold is not None

    def step(self, event: str) -> None:
        self._state = lifecycle.TABLE[self._state, event]

    def give_back(self) -> None:
        """It has been admitted and does not run yet: others may have what it holds."""
        if self.holding is not None:
            self.holding.cancel()

    def note_wait(self, since: float, authed: float) -> None:
        """It has waited in a queue from ``since`` on, which only the phase ``queue`` has; ``authed``: before that."""
        now = _monotonic()
        self.waited, self.authed = now - since, authed
        if self.opened:
            self.routed -= self.waited
        else:
            self.asked, self.queued = since, now

    def drop(self, names: tuple[str, ...]) -> None:
        """The attempt's target is not sent these members of the request."""
        self.dropped = names
        self.fields = b"x-headgate-dropped: %b\r\n" % visible(", ".join(names))

    def begin(self, attempt: Attempt, why: str = "first") -> None:
        """One upstream request starts.  ``why`` as in model.AttemptRecord."""
        self.step("try")
        self.target = attempt
        self.fell_back = attempt.target is not self.meant and _differ(attempt.target, self.meant)
        self._why = why
        self._started = _monotonic()

    def answered(self, asking: Asking) -> None:
        """The upstream has answered: when the request went out, and when its head (or all of it) was here."""
        if self.first_token:
            return  # the phases are those of the attempt that brought it
        self.asked = self._started - self.waited if self.attempts else self.routed
        self.queued = asking.queued
        self.connected = asking.connected
        self.head = _monotonic()

    def replay(self, attempt: Attempt, dropped: tuple[str, ...]) -> None:
        """The answer of an earlier call, which ``attempt`` wrote, is given again: no upstream is asked."""
        self.step("try")
        self.target = attempt
        if dropped:
            self.drop(dropped)
        self.number = 0
        self._metadata = _OF_REPLAY

    def replayed(self, usage: Usage) -> None:
        """All of it is there.  ``usage`` is that of the earlier call, and costs nothing."""
        self.usage = replace(usage, basis="cached")
        self.answered_all = True

    def end(self, status: int, code: str, used: Used, skipped: int = 0) -> None:
        """The attempt is over: with an upstream's ``status`` (0: there was none) and our ``code`` (empty: delivered).

        ``skipped``: so many events of its stream could not be read, so its answer may lack something.
        """
        attempt = self.target
        assert attempt is not None
        target, billed = attempt.target, used.billed
        if target.price.hours:  # the end of a request decides what it costs
            target = replace(target, price=metering.price_at(target.price, time.time()))
        cost = metering.cost(billed, target.price)
        ended = self._ended
        ended.append(Ended(target, used))
        if used.delivered is billed and len(ended) == 1:
            self.usage, self.cost = billed, cost
        else:
            self.usage, self.cost = metering.usage_of(ended), metering.cost_of(ended)
        account, received = attempt.account, self.received
        self.attempts.append(
            AttemptRecord(
                target.provider.name, target.upstream_model, account.id if account is not None else "", status, code,
                int((self._started - received) * 1e6), int((_monotonic() - received) * 1e6), self._why,
                billed.prompt, billed.completion, -1 if cost is None or billed == NOTHING.billed else cost, skipped,
            )
        )  # fmt: skip
        self._started = 0.0
        if code:
            self.number += 1
        else:
            self.answered_all = True
        if skipped:
            self._skips = not code or bool(self.first_token)  # else the client has nothing of this attempt

    def probed(self, attempt: Attempt, status: int, code: str, began: float, own: Usage) -> None:
        """A request that only finds something out, for one token: it stands beside the attempts."""
        target, account, received = attempt.target, attempt.account, self.received
        cost = metering.cost(own, target.price)
        self.attempts.append(
            AttemptRecord(
                target.provider.name, target.upstream_model, account.id if account is not None else "", status, code,
                int((began - received) * 1e6), int((_monotonic() - received) * 1e6), "prefill_probe",
                own.prompt, own.completion, -1 if cost is None or own == NOTHING.billed else cost,
            )
        )  # fmt: skip

    def metadata(self) -> bytes:
        """The ``headgate`` object of an answer, as JSON: its target, how long it took (ms), what it costs (USD)."""
        attempt = self.target
        assert attempt is not None
        now = _monotonic()
        return self._metadata % (
            encode(attempt.target.provider.name),
            encode(attempt.target.upstream_model),
            (now - self.received) * 1e3,
            ((self.first_token or now) - self.received) * 1e3,
            b"null" if self.cost is None else b"%.9f" % (self.cost / 1e9),
            self.usage.basis.encode(),
            b"true" if self.fell_back else b"false",
            self.number,
            self._rest() if self.continued or self.dropped else b"",
        )

    def _rest(self) -> bytes:
        """Further members of the ``headgate`` object, as few answers have them."""
        seams = b',"continued":%b' % encode([explain.seam_view(seam) for seam in self.continued])
        return (seams if self.continued else b"") + (b',"dropped":%b' % encode(self.dropped) if self.dropped else b"")

    def trace(self) -> bytes:
        """The route trace of a call that has delivered, as JSON."""
        return encode(self.trace_members())

    def trace_members(self) -> dict[str, object]:
        attempt = self.target
        assert attempt is not None
        last = attempt.target
        return {
            "requested_model": self.requested,
            "provider": last.provider.name,
            "model": last.upstream_model,
            "fallback_used": self.fell_back,
            **({"cache": self.cache.status} if self.cache is not None else {}),
            "parameters": _edits(last.row),
            **({"dropped": list(self.dropped)} if self.dropped else {}),
            "candidates": [
                {"provider": c.target.provider.name, "model": c.target.model, "reason": c.reason or None}
                for c in (self.plan.candidates if self.plan is not None else ())
            ],
            **({"queued_ms": round(self.waited * 1000, 3)} if self.waited else {}),
            **({"passed_over": self.passed_over} if self.passed_over else {}),
            "attempts": [explain.attempt_view(one) for one in self.attempts],
            **({"continued": [explain.seam_view(seam) for seam in self.continued]} if self.continued else {}),
        }


def _edits(row: ModelRow | None) -> dict[str, object] | None:
    """What the row of the target makes of the client's parameters, by name; None: nothing."""
    if row is None or not (row.param_defaults or row.param_drop or row.param_map):
        return None
    return {"default": list(row.param_defaults), "drop": list(row.param_drop), "map": dict(row.param_map)}


def _differ(target: Target, other: Target | None) -> bool:
    return other is not None and (target.provider.name, target.upstream_model) != (
        other.provider.name, other.upstream_model,
    )  # fmt: skip
