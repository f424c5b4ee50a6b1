"""What a failed attempt leads to: another one, and what that one is asked.

Made at a call's first failure, so a call without one pays nothing for it.  Owns what has been learnt in this call: the
field that its target would not take, and where the client's stream broke.  Decides nothing itself: ``policy.attempts``
says who is asked next, ``policy.continuation`` whether a broken stream may go on, the dialect how it is asked for.
"""

from __future__ import annotations

from typing import final

from msgspec.structs import replace

from headgate.dialects import canonical
from headgate.dialects import seam as seams
from headgate.dialects.registry import BACKENDS
from headgate.errors import ALL_ATTEMPTS_FAILED, DRAINING, GatewayError, Retry
from headgate.model import Alias, Attempt, Call, Delivered, Plan, SeamRecord, Target
from headgate.policy.attempts import continuation
from headgate.policy.attempts.next_attempt import NextAttempt
from headgate.policy.attempts.progress import Step
from headgate.policy.health.targets import HealthState, Key, blames_our_field, key_of_target
from headgate.ports import StreamBridge
from headgate.serving.call.relay import Relay
from headgate.serving.call.running import RunningCall
from headgate.serving.loop.fiber import Signal
from headgate.serving.loop.wheel import Wheel

_COME_AGAIN = (429, 503)  # statuses that a Retry-After belongs to


def continues(call: Call, alias: Alias) -> bool:
    """Whether a stream of this call that breaks may be gone on with."""
    return (call.options.on_midstream_failure or alias.on_midstream_failure) == "continue"


@final
class Recovery:
    """One call's.  ``asked`` is what the next attempt is asked, ``seam`` how its stream joins what the client has."""

    def __init__(
        self,
        call: Call,
        plan: Plan,
        next_attempt: NextAttempt,
        health: HealthState,
        wheel: Wheel,
        receipt: RunningCall,
        relay: Relay | None,
    ) -> None:
        self.asked = call
        self.seam: seams.Seam | None = None
        self.broke: GatewayError | None = None  # where the client's stream broke first
        self._have: Delivered | None = None  # what the client has of a stream that broke
        self._break: tuple[Target, str] | None = None  # who wrote the end of that, and the code of what ended it
        self._call = call
        self._plan = plan
        self._next_attempt = next_attempt
        self._health = health
        self._wheel = wheel
        self._receipt = receipt
        self._relay = relay
        self._bare: set[Key] = set()  # targets that are asked without the field that only we have added
        self._continues = continues(call, plan.alias)

    def asks_usage(self, attempt: Attempt) -> bool:
        """Whether this attempt is asked for its usage."""
        target = attempt.target
        return key_of_target(target) not in self._bare and self._health.asks_usage(target, self._wheel.now)

    def is_complete(self, attempt: Attempt, bridge: StreamBridge | None) -> bool:
        """Whether a failed attempt has delivered all the same: nothing of the answer was lost but its end.  The bridge
        then says so too.  ``bridge`` is the attempt's, where it has answered with a stream.
        """
        have = bridge.delivered if bridge is not None else None
        if bridge is None or have is None:
            return False
        if self.seam is None:
            self._call = canonical.as_asked(self._call, attempt.target.row)
        verdict = self._judge(have)
        if verdict is continuation.WHOLE:
            return bridge.complete("stop")
        if not (self._continues and verdict.goes_on):
            return False
        tokens = continuation.least_tokens(have, self._receipt.usage.plus(bridge.used.delivered))
        return canonical.exhausted(self._call, tokens) and bridge.complete("length")

    def after(self, error: GatewayError, step: Step, bridge: StreamBridge | None) -> Step:
        """The next attempt; ``bridge`` as for ``is_complete``.  Raises GatewayError, for the client, where there is no
        next one.
        """
        if error.kind is DRAINING:
            raise error  # the gateway's own end: nothing more is tried, and no other failure is told instead
        now = self._wheel.now
        relay, attempt = self._relay, step.attempt
        last = relay.bridge if relay is not None else None  # of this attempt, or of an earlier one
        have = last.delivered if last is not None else None
        silent = bridge is None or have is None
        if relay is not None and silent and self._refused_our_field(error, attempt):
            self._bare.add(key_of_target(attempt.target))
            claims = tuple(claim for claim in step.claims if claim == "use")  # the account serves one request more
            why = "retry" if self.seam is None else step.why
            return self._committed(replace(step, wait=0.0, why=why, claims=claims))
        if have is None:
            following = self._next_attempt.after(error, now)
            if following is None:
                raise self._last(error, now)
            return self._committed(following)
        seam = self.seam
        spoke = bridge is not None and (seam is None or seam.begun)
        if spoke and seam is not None and seam.echoed:
            self._note_echo(attempt.target, now)
        return self._go_on(error, step, have, spoke, now)

    def _judge(self, have: Delivered) -> continuation.Verdict:
        return continuation.judge(have, self._call.prompt.obstacle)

    def _refused_our_field(self, error: GatewayError, attempt: Attempt) -> bool:
        backend = BACKENDS[attempt.target.provider.dialect]
        ours = backend.adds_usage_field(self._call)
        return ours and self.asks_usage(attempt) and blames_our_field(error, backend.usage_fields)

    def _go_on(self, error: GatewayError, step: Step, have: Delivered, spoke: bool, now: float) -> Step:
        broke = self.broke = self.broke or error
        unclear = spoke and self.seam is not None and self.seam.unclear
        if self._break is None or (spoke and have.text != self._have_text):
            self._break = step.attempt.target, error.kind.code
        self._have = have
        verdict = self._judge(have)
        if not (self._continues and verdict.goes_on):
            self._next_attempt.after(error, now)  # health is told all the same
            raise self._ended(broke, verdict.why if self._continues else continuation.FORBIDDEN)
        # White space alone is no text to go on with: a target that drops it would be given nothing
        prefill = verdict.prefill and bool(self._have_text.strip())
        following = self._next_attempt.after(error, now, continuing=True, spoke=spoke, unclear=unclear, prefill=prefill)
        if following is None:
            raise self._ended(broke, f"{self._next_attempt.given_up} ({error.kind.code}: {error.message})")
        return self._committed(following)

    def _committed(self, step: Step) -> Step:
        self._health.commit(step.attempt, step.claims, self._wheel.now)
        return step

    @property
    def _have_text(self) -> str:
        return (self._have.text if self._have is not None else None) or ""

    def _ended(self, broke: GatewayError, why: str) -> GatewayError:
        broke.not_continued = self._receipt.not_continued = why
        return broke

    def _note_echo(self, target: Target, now: float) -> None:
        """The target has not taken the prefill; that the answer to a ``prefix`` begins with it is no sign of that."""
        if target.prefill != "prefix":
            self._health.rejects_prefill(target, now)

    def must_probe(self, step: Step) -> bool:
        """Whether it has to be found out first what the target does with the white space that the text ends in."""
        text = self._have_text
        ends_in_space = step.why == "continue" and text != text.rstrip()
        return ends_in_space and self._health.probes_trims(step.attempt.target, self._wheel.now)

    def prepare(self, step: Step) -> None:
        """Sets what this attempt is asked, and how its stream joins what the client has."""
        have = self._have
        if have is None:
            return
        text, target = self._have_text, step.attempt.target
        if step.why != "continue":
            self.asked = self._call
            self.seam = seams.Seam(text, afresh=True)
            return
        trims = self._health.trims(target, self._wheel.now)
        given = text.rstrip() if trims else text
        spent = have.tokens - canonical.space_tokens(text[len(given) :])  # the white space is said again
        self.asked = canonical.continued(self._call, given, spent, target.prefill)
        self.seam = seams.Seam(
            text, afresh=False, trims=trims, stops=self._call.prompt.stops,
            limited=self._call.max_tokens is not None,
        )  # fmt: skip

    def joint(self, attempt: Attempt) -> SeamRecord | None:
        """Where this attempt goes on, for people; None where it does not."""
        if self.seam is None or self._break is None:
            return None
        origin, why = self._break
        return SeamRecord(len(self._have_text), origin.name, attempt.target.name, why)

    def _last(self, error: GatewayError, now: float) -> GatewayError:
        """What the client is told after the last attempt: its error, or all of them where they were not alike; with the
        time of the first return, where that is known.
        """
        attempts = self._receipt.attempts
        if error.retry is Retry.NEVER or len({attempt.code for attempt in attempts}) == 1:
            if error.kind.status in _COME_AGAIN:
                back = self._health.back_in(self._plan.attempts, now)
                error.retry_after = error.retry_after if back is None else back
            return error
        listed = "; ".join(f"{attempt.provider}/{attempt.model}: {attempt.code}" for attempt in attempts)
        return GatewayError(
            ALL_ATTEMPTS_FAILED,
            f"none of {len(attempts)} attempts was answered ({listed}); the last one said: {error.message}",
            retry_after=error.retry_after,
            upstream_status=error.upstream_status,
        )

    def succeeded(self, attempt: Attempt) -> None:
        """The attempt has brought the call to its end: what that has shown is remembered."""
        if key_of_target(attempt.target) in self._bare:
            self._health.rejects_usage(attempt.target, self._wheel.now)
        if self.seam is not None and self.seam.echoed:
            self._note_echo(attempt.target, self._wheel.now)


class Pause(Signal[None]):
    """So many seconds; await it.  A client that leaves ends it."""

    def __init__(self, wheel: Wheel, seconds: float) -> None:
        self.slot = -1
        wheel.set(self, wheel.now + seconds)

    due = 0.0

    def expire(self, now: float) -> None:
        self.set(None)
