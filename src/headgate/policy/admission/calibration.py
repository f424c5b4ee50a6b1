"""By how much the estimate of a prompt is off, per model, as its provider's counts have shown.

An estimate counts bytes (four of ASCII are a token); a provider's tokenizer has its own idea, and a chat template adds
to it.  Large prompts count for more: what is learnt is the ratio of the sums, each older call for a tenth less.
"""

from __future__ import annotations

from msgspec import Struct

from headgate.model import Target
from headgate.model.bounded import Bounded

MOST_MODELS = 4096
EACH = 256  # so many calls are looked at one by one; then every eighth will do
_DECAY = 0.9
_PRIOR = 1000.0  # tokens: as if so many had been estimated rightly
_LEAST, _MOST = 0.5, 4.0  # a token has one byte of ASCII at least


class Learnt(Struct, gc=False):
    """Of one model.  ``factor``: what an estimate has to be multiplied with: the ratio, and the mean distance from it
    on top.  The others are decayed sums of tokens: estimated, reported, and how far both were apart.
    """

    factor: float = 1.0
    estimated: float = _PRIOR
    reported: float = _PRIOR
    apart: float = 0.0

    def learn(self, estimated: int, reported: int) -> None:
        """A prompt's tokens, as they were estimated and as the provider counted them."""
        if estimated <= 0 or reported <= 0:
            return
        apart = abs(reported - estimated * self.reported / self.estimated)
        self.estimated = self.estimated * _DECAY + estimated
        self.reported = self.reported * _DECAY + reported
        self.apart = self.apart * _DECAY + apart
        self.factor = min(_MOST, max(_LEAST, (self.reported + self.apart) / self.estimated))


class Calibration:
    """All that has been learnt.  Bounded: the model that was first asked for longest ago is forgotten first.
    ``skipped``: so many of the next calls need not be learnt from.
    """

    def __init__(self) -> None:
        self._learnt: Bounded[tuple[str, str], Learnt] = Bounded(MOST_MODELS)
        self._calls = 0
        self.skipped = 0

    def learn(self, target: Target, estimated: int, reported: int) -> None:
        """As ``Learnt.learn``, of the model that has served."""
        self.of(target).learn(estimated, reported)
        self._calls += 1
        self.skipped = 0 if self._calls < EACH else 7

    def of(self, target: Target) -> Learnt:
        key = (target.provider.name, target.upstream_model)
        found = self._learnt.get(key)
        if found is None:
            found = Learnt()
            self._learnt.put(key, found)
        return found
