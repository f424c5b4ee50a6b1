"""Finding out what a target does with a prefill's trailing white space: two requests for one token each.

Asked where it matters, when a text ends in white space and the target does not say; what is found is kept in Health.
Never fails a call: a target that does not answer in time, or gives no counts, stays unknown.
"""

from __future__ import annotations

import time

from headgate.dialects import canonical
from headgate.dialects.base import Backend
from headgate.dialects.registry import BACKENDS
from headgate.errors import GatewayError
from headgate.model import Attempt, Call, Limits, Usage
from headgate.policy.health.targets import HealthState, key_of_target
from headgate.ports import Asking
from headgate.serving.call.running import RunningCall
from headgate.serving.loop.wheel import Wheel
from headgate.serving.upstream.carriers import Carriers

PATIENCE_S = 5.0
_monotonic = time.monotonic


class Probe:
    """What every probe of a call needs."""

    def __init__(
        self, carriers: Carriers, health: HealthState, wheel: Wheel, limits: Limits, receipt: RunningCall
    ) -> None:
        self._carriers = carriers
        self._health = health
        self._wheel = wheel
        self._limits = limits
        self._receipt = receipt

    async def find_trims(self, attempt: Attempt, headers: dict[bytes, bytes], deadline: float) -> None:
        """Tells Health.  Raises ClientGone."""
        target = attempt.target
        due = min(deadline, _monotonic() + PATIENCE_S)
        askings: list[Asking] = []
        finished: list[Asking] = []
        answers: list[tuple[int, bytes]] = []
        try:
            for call in canonical.probes(target.model, target.prefill):
                askings.append(self._ask(call, attempt, headers, due))
            for asking in askings:
                answers.append(await self._answer(asking, attempt))
                finished.append(asking)
        except GatewayError:
            return  # its key is not known here: the continuation will say so
        finally:
            for asking in askings:
                asking.release(finished=asking in finished)
        plain, spaced = answers
        found = canonical.trims(plain, spaced, _backend(attempt).usage)
        if found is not None or plain[0] == spaced[0] == 200:
            self._health.learn_trims(key_of_target(target), found, self._wheel.now)

    def _ask(self, call: Call, attempt: Attempt, headers: dict[bytes, bytes], due: float) -> Asking:
        rendered = _backend(attempt).render(call, attempt.target, False)
        carrier = self._carriers[attempt.target.provider.carrier]
        return carrier.ask(attempt, rendered, headers, False, due, self._limits.max_answer)

    async def _answer(self, asking: Asking, attempt: Attempt) -> tuple[int, bytes]:
        began = _monotonic()
        status, body, code = 0, b"", "prefill_probe"
        try:
            upstream = await asking
            status, body = upstream.status, upstream.body
        except GatewayError as error:
            code = error.kind.code
        own = _backend(attempt).usage(body) if status == 200 else None
        self._receipt.probed(attempt, status, code, began, own or Usage())
        return status, body


def _backend(attempt: Attempt) -> Backend:
    return BACKENDS[attempt.target.provider.dialect]
