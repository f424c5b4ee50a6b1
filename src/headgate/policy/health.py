"""What has been learnt about targets by asking them.

Today one thing: which of them reject ``stream_options``, the field that we add to every stream to have its usage
reported.  Kept for the life of the process; a restart asks once more.
"""

from __future__ import annotations

from headgate.errors import GatewayError
from headgate.model import Target

MAX_REMEMBERED = 4096
OURS = ("stream_options", "include_usage")


class Health:
    """Per target, named by provider and upstream model."""

    __slots__ = ("_no_usage",)

    def __init__(self) -> None:
        self._no_usage: set[tuple[str, str]] = set()

    def asks_usage(self, target: Target) -> bool:
        """Whether a stream of this target may be asked for its usage."""
        return not self._no_usage or (target.provider.name, target.upstream_model) not in self._no_usage

    def learn(self, target: Target, error: GatewayError) -> bool:
        """Takes in a refusal.  True where it was of a field that only we have added: asking without it may succeed."""
        if error.upstream_status not in (400, 422) or not self.asks_usage(target):
            return False
        said = f"{error.param or ''} {error.message}"
        if not any(field in said for field in OURS):
            return False
        if len(self._no_usage) < MAX_REMEMBERED:
            self._no_usage.add((target.provider.name, target.upstream_model))
        return True
