"""What an alias does beside leading to its targets: in which order, and what becomes of a call that fails or is left.

The fields that an alias of the file and one of the store share.  docs/configuration.md says what each does.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from headgate.control.objects.fields import Positive
from headgate.model import Alias

Retries = Annotated[int, Field(ge=0, le=2)]
Weight = Annotated[int, Field(ge=1, le=1000)]


class Drain(BaseModel):
    """How far a stream is read to its end when its client has left."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)

    max_s: Positive = 120
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 8192


class Conduct(BaseModel):
    """The fields.  ``settled`` gives them as ``model.Alias`` has them, ``of`` takes them from there."""

    model_config = ConfigDict(defer_build=True)  # it has no instances of its own

    strategy: Literal["priority", "weighted", "cheapest", "fastest", "balanced"] = "priority"
    retries: Retries | None = None
    on_midstream_failure: Literal["continue", "error"] = "continue"
    on_disconnect: Literal["cancel", "drain", "detach"] = "cancel"
    drain: Drain = Drain()
    resumable_s: Annotated[float, Field(ge=0, le=3600)] = 0
    early_commit_s: Positive | None = None
    tool_calls: Literal["stream", "hold"] = "stream"
    structured: Literal["error", "buffer"] = "error"
    affinity: Literal["none", "prompt_cache", "session"] = "prompt_cache"
    privacy: Literal["any", "no_train", "trusted", "own"] = "any"

    def settled(self) -> dict[str, Any]:
        """Arguments for ``model.Alias``."""
        values = {name: getattr(self, name) for name in Conduct.model_fields if name != "drain"}
        return {**values, "drain_s": self.drain.max_s, "drain_tokens": self.drain.max_tokens}

    @staticmethod
    def of(alias: Alias) -> dict[str, Any]:
        """An alias's values, by the names of the fields."""
        values = {name: getattr(alias, name) for name in Conduct.model_fields if name != "drain"}
        return {**values, "drain": Drain(max_s=alias.drain_s, max_tokens=alias.drain_tokens)}
