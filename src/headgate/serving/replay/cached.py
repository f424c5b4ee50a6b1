"""Calls that use the response cache: their look-up, an answer from it, and the answers that go into it."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.dialects import canonical
from headgate.errors import GatewayError
from headgate.model import NOTHING, Attempt, Call, Grant, Plan, Target
from headgate.policy import caching
from headgate.ports import Upstream
from headgate.serving.call.answering import Answering, Ending
from headgate.serving.call.recovery import Recovery
from headgate.serving.loop.wheel import Wheel
from headgate.serving.replay.answers import AnswerCache, CacheUse, Recorded, StoredAnswer
from headgate.serving.replay.recording import Playback, Recording

HIT, MISS, BYPASS = "hit", "miss", "bypass"


def look_up(
    cache: AnswerCache, call: Call, plan: Plan, grant: Grant, headers: Mapping[bytes, bytes]
) -> CacheUse | None:
    """Return how a call uses the cache; None: not at all."""
    wish = caching.decide(call.options, plan.alias)
    if wish is None:
        return None
    if not cache.memory.most or not caching.is_cacheable(call):
        return CacheUse(cache, BYPASS, wish)
    key = caching.key(canonical.fingerprint(call, headers), plan, grant, headers)
    stored = cache.find(key, wish.ttl_s)
    return CacheUse(cache, HIT if stored is not None else MISS, wish, key, plan.requested, plan.attempts, stored)


class CachedAnswering(Answering):
    """One call's, where it uses the cache.  What follows is of the attempt that has delivered all of the answer."""

    recorded: Recorded | None = None
    served: Target | None = None

    @property
    def use(self) -> CacheUse:
        use = self.receipt.cache
        assert use is not None
        return use

    async def read(self, upstream: Upstream, attempt: Attempt, recovery: Recovery | None) -> None:
        """See ``Answering.read``.  Records the answer."""
        if self.use.status != MISS:
            await super().read(upstream, attempt, recovery)
            return
        recording = Recording(upstream, self.use.cache)
        try:
            await super().read(recording, attempt, recovery)
            if recovery is None or recovery.seam is None:  # else it is only a part of the answer
                self.recorded, self.served = recording.take(), attempt.target
        finally:
            recording.give_up()

    def conclude(self) -> Ending:
        """See ``Answering.conclude``.  Stores the answer if it may be given again."""
        if self.recorded is not None and self.served is not None and self._is_sound(self.served):
            use, receipt = self.use, self.receipt
            cost = -1 if receipt.cost is None else receipt.cost
            stored = StoredAnswer(use, self.served, self.recorded, receipt.dropped, cost)
            use.cache.put(stored, use.caching.ttl_s)
        return super().conclude()

    def _is_sound(self, served: Target) -> bool:
        receipt, bridge, answer = self.receipt, self.bridge, self.answer
        if receipt.stopped or not caching.is_of(served, self.use.attempts):
            return False
        hold = receipt.holding.hold if receipt.holding is not None else None
        if bridge is not None:
            return caching.is_sound(bridge.finish, bridge.skipped, bridge.view.size, hold)
        return answer is not None and caching.is_sound(answer.finish, answer.skipped, answer.text_bytes, hold)

    async def tell_again(self, wheel: Wheel, deadline: float) -> Ending:
        """Answer with the stored answer.  Raises ClientGone, and GatewayError where a hook does not let it pass."""
        receipt, use = self.receipt, self.use
        stored = use.stored
        assert stored is not None
        receipt.replay(stored.attempt, stored.dropped)
        playback = Playback(stored, wheel, as_stream=self.call.stream, recorded=use.caching.recorded, deadline=deadline)
        try:
            await self.read(playback, stored.attempt, None)
        except GatewayError:
            use.cache.forget(stored)
            raise
        shown = self.bridge or self.answer
        receipt.replayed(shown.used.delivered if shown is not None else NOTHING.delivered)
        return self.conclude()
