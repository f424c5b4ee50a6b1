"""What has been learnt about targets by asking them.

Today one thing: which of them reject ``stream_options``, the field that we add to every stream to have its usage
reported.  Remembered for an hour once an attempt without it has succeeded; a refusal alone proves nothing, for an
upstream may be quoting its client.
"""

from __future__ import annotations

from headgate.errors import GatewayError
from headgate.model import Target

MAX_REMEMBERED = 4096
REMEMBERED_S = 3600.0
OURS = ("stream_options", "include_usage")


class Health:
    """Per target, named by provider and upstream model.  ``now`` is monotonic seconds."""

    __slots__ = ("_no_usage",)

    def __init__(self) -> None:
        self._no_usage: dict[tuple[str, str], float] = {}

    def asks_usage(self, target: Target, now: float) -> bool:
        """Whether a stream of this target may be asked for its usage."""
        if not self._no_usage:
            return True
        return self._no_usage.get((target.provider.name, target.upstream_model), 0.0) <= now

    def rejects_usage(self, target: Target, now: float) -> None:
        """A stream without the field has succeeded where one with it was refused."""
        if len(self._no_usage) >= MAX_REMEMBERED:  # clients may name any model after a provider's slash
            self._no_usage.clear()
        self._no_usage[target.provider.name, target.upstream_model] = now + REMEMBERED_S


def blames_our_field(error: GatewayError) -> bool:
    """Whether an upstream's refusal may be of a field that only we have added."""
    if error.upstream_status not in (400, 422):
        return False
    said = f"{error.param or ''} {error.message}"
    return any(field in said for field in OURS)
