"""The response cache: finished answers of upstreams, to be given to later requests that are the same.

Owns the stored answers, their time and their memory.  An answer is stored as its upstream sent it, so that it passes
through the same bridge as one that comes now: as a stream or whole, for a client of any API.  Knows no call.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from typing import NamedTuple

from msgspec import Struct

from headgate.model import FREE, Attempt, Closed, Provider, Target, Timeouts
from headgate.policy.caching import Caching
from headgate.serving.loop.wheel import NEVER, Wheel
from headgate.serving.replay.ring import EventMemory

WEIGHT = 1280  # memory of a stored answer beside its body and its pace; measured: 1.1 KB
SHARE = 16  # one answer takes at most this part of the memory
RECORDING_SHARE = 4  # and all answers that are being recorded, beside it, at most this part


class CacheUse(Struct):
    """One call's.  ``status``: hit | miss | bypass.  ``stored``: the answer of a hit.  ``attempts``: those of the plan
    that ``key`` stands for.
    """

    cache: AnswerCache
    status: str
    caching: Caching
    key: bytes = b""
    requested: str = ""
    attempts: tuple[Attempt, ...] = ()
    stored: StoredAnswer | None = None

    def note(self, closed: Closed) -> None:
        """Put it on record.  A hit has asked nobody, so no provider's sums have it."""
        closed.cache = self.status
        if self.stored is not None:
            closed.saved = self.stored.cost if closed.outcome == "delivered" else -1
            closed.provider = closed.model = closed.price_source = closed.price_id = ""


class Recorded(NamedTuple):
    """The body of an upstream's answer, deflated (zlib), and the number of its bytes.  ``pace``: pairs of milliseconds
    and bytes, empty for one that came whole.
    """

    deflated: bytes
    size: int
    pace: array[int]


class StoredAnswer:
    """One answer to calls that asked for ``requested``.  ``dropped``: members of the request that its target was not
    sent.  ``cost``: nano-USD of the call that it came with; -1: unknown.

    ``attempt`` names its target for bridges and records.  Its price is nothing, and it holds no configuration.
    """

    slot = -1

    def __init__(
        self, use: CacheUse, served: Target, recorded: Recorded, dropped: tuple[str, ...] = (), cost: int = -1
    ) -> None:
        cache = self._cache = use.cache
        self.key = use.key
        self.requested = use.requested
        self.attempt = told_again(served)
        self.dropped = dropped
        self.recorded = recorded
        self.cost = cost
        self.at = cache.wheel.now
        self.due = NEVER
        self.weight = WEIGHT + len(recorded.deflated) + len(recorded.pace) * recorded.pace.itemsize

    def expire(self, now: float) -> None:
        """Called by the wheel: it has been kept for long enough."""
        self._cache.forget(self)


def told_again(target: Target) -> Attempt:
    """Return the target of a stored answer: names and an API, without the provider's models, keys and prices."""
    served = target.provider
    provider = Provider(served.name, "", dialect=served.dialect, auth="none", preset=served.preset)
    return Attempt(Target(provider, target.model, target.upstream_model, FREE, Timeouts()), None)


class AnswerCache:
    """All stored answers of this process, the one that was used last at the end.

    When the memory is full, the answers that were not used for longest make room, one by one.
    """

    def __init__(self, wheel: Wheel, most: int) -> None:
        self.wheel = wheel
        self.memory = EventMemory(most)
        self.recording = EventMemory(most // RECORDING_SHARE)
        self._answers: dict[bytes, StoredAnswer] = {}
        self._hits = self._misses = self._stored = self._evicted = 0

    def find(self, key: bytes, ttl_s: float) -> StoredAnswer | None:
        """Return the answer of ``key``, if it is not older than ``ttl_s`` seconds."""
        now = self.wheel.now
        found = self._answers.get(key)
        if found is None or now >= found.due or now - found.at > ttl_s:
            self._misses += 1
            return None
        self._hits += 1
        self._answers[key] = self._answers.pop(key)
        return found

    def put(self, answer: StoredAnswer, ttl_s: float) -> None:
        """Store an answer in the place of an earlier one of its key.  One that is too large is not stored."""
        memory = self.memory
        if answer.weight > memory.most // SHARE:
            return
        before = self._answers.get(answer.key)
        if before is not None:
            self.forget(before)
        while not memory.take(answer.weight):
            self.forget(next(iter(self._answers.values())))
            self._evicted += 1
        self._answers[answer.key] = answer
        self._stored += 1
        self.wheel.set(answer, self.wheel.now + ttl_s)

    def forget(self, answer: StoredAnswer) -> None:
        """Drop an answer.  A second call has no effect."""
        if self._answers.get(answer.key) is answer:
            del self._answers[answer.key]
            self.memory.used -= answer.weight
            self.wheel.drop(answer)

    def clear(self, requested: str = "") -> int:
        """Drop all answers, or those to calls that asked for this model or alias; return their number."""
        dropped = [one for one in self._answers.values() if requested in ("", one.requested)]
        for one in dropped:
            self.forget(one)
        return len(dropped)

    @property
    def to_questions(self) -> Mapping[str, Callable[[Mapping[str, str]], object]]:
        """What control may ask, by the kind of the question."""
        return {
            "cache": lambda _params: self.gauges(),
            "cache_clear": lambda params: {"cleared": self.clear(params.get("requested", ""))},
        }

    def gauges(self) -> dict[str, float]:
        return {
            "cache_entries": len(self._answers),
            "cache_bytes": self.memory.used,
            "cache_max_bytes": self.memory.most,
            "cache_hits": self._hits,
            "cache_misses": self._misses,
            "cache_stored": self._stored,
            "cache_evicted": self._evicted,
        }
