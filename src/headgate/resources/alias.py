"""An alias: its targets, in which order they are asked, and what becomes of a call that fails or is left.

docs/configuration.md says what each field does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic_core.core_schema import SerializationInfo

from headgate import model
from headgate.catalog import words
from headgate.resources.fields import STORE, ModelName, Positive, Resource, Text
from headgate.resources.timeouts import TimeoutsWish

Retries = Annotated[int, Field(ge=0, le=2)]
Weight = Annotated[int, Field(ge=1, le=1000)]


class Drain(Resource):
    """How far a stream is read to its end when its client has left."""

    max_s: Positive = 120
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 8192


class CacheTable(Resource):
    """Which calls of an alias use the response cache; a request's ``headgate.cache`` overrides each value."""

    enabled: bool = False
    ttl_s: Annotated[float, Field(ge=60, le=86_400)] = 3600
    pace: words.CachePace = "at_once"


class Queue(Resource):
    """How many calls of one tenant may wait for a limit instead of being refused, and how long."""

    size: Annotated[int, Field(ge=0, le=10_000)] = 0
    wait_s: Annotated[float, Field(gt=0, le=600)] = 10


class AliasSettings(Resource):
    """What an alias does beside leading to its targets.  ``settled`` gives the fields as ``model.Alias`` has them,
    ``values_of`` takes them from there.
    """

    strategy: words.Strategy = "priority"
    retries: Retries | None = None
    on_midstream_failure: words.OnMidstreamFailure = "continue"
    on_disconnect: words.OnDisconnect = "cancel"
    drain: Drain = Drain()
    resumable_s: Annotated[float, Field(ge=0, le=3600)] = 0
    early_commit_s: Positive | None = None
    tool_calls: words.ToolCalls = "stream"
    structured: words.Structured = "error"
    affinity: words.Affinity = "prompt_cache"
    privacy: words.Privacy = "any"
    hold_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    unpriced: words.Unpriced | None = None
    cache: CacheTable = CacheTable()
    queue: Queue = Queue()

    def settled(self) -> dict[str, Any]:
        """Arguments for ``model.Alias``."""
        values = {name: getattr(self, name) for name in _PLAIN}
        nested = {field: getattr(getattr(self, table), name) for field, (table, name) in _NESTED.items()}
        return values | nested

    @staticmethod
    def values_of(alias: model.Alias) -> dict[str, Any]:
        """An alias's values, by the names of the fields."""
        values = {name: getattr(alias, name) for name in _PLAIN}
        return values | _tables({field: getattr(alias, field) for field in _NESTED})


# Fields of ``model.Alias`` that stand in a table of their own: its name, and theirs in it
_NESTED = {
    "drain_s": ("drain", "max_s"),
    "drain_tokens": ("drain", "max_tokens"),
    "queue_size": ("queue", "size"),
    "queue_wait_s": ("queue", "wait_s"),
    "cache_enabled": ("cache", "enabled"),
    "cache_ttl_s": ("cache", "ttl_s"),
    "cache_pace": ("cache", "pace"),
}
_PLAIN = tuple(name for name in AliasSettings.model_fields if name not in ("drain", "queue", "cache"))


def _tables(fields: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tables of these fields."""
    found: dict[str, dict[str, Any]] = {}
    for field, value in fields.items():
        table, name = _NESTED[field]
        found.setdefault(table, {})[name] = value
    return found


class TargetWish(Resource):
    """The first target that can serve does, or as the alias's ``strategy`` says."""

    model: ModelName = Field(description="provider/model", examples=["openai/gpt-4o-mini"])
    weight: Weight = 1


class AliasWish(AliasSettings):
    """The whole alias: what is left out is not kept."""

    targets: list[TargetWish] = Field(default=[], max_length=50, description="Only `auto` may have none.")
    use_case: Text | None = None
    timeouts: TimeoutsWish = TimeoutsWish()

    @property
    def refs(self) -> tuple[model.TargetRef, ...]:
        """The targets, as the data plane has them."""
        return tuple(model.TargetRef(target.model, target.weight) for target in self.targets)

    def alias(self, name: str, targets: Iterable[model.TargetRef] | None = None) -> model.Alias:
        """What the data plane is told; ``targets``: those that exist, where not all do."""
        found = self.refs if targets is None else tuple(targets)
        timeouts = self.timeouts.set_ones()
        return model.Alias(name, found, self.use_case, timeouts, origin=STORE, **self.settled())

    @model_validator(mode="before")
    @classmethod
    def _from_store(cls, value: Any, info: ValidationInfo) -> Any:
        """The store holds the fields of ``AliasSettings`` as ``model.Alias`` has them, under ``conduct``."""
        if info.context is not STORE:
            return value
        conduct = dict(value.get("conduct", {}))
        nested = {field: conduct.pop(field) for field in _NESTED if field in conduct}
        return {**value, **conduct, **_tables(nested)}

    @model_serializer(mode="wrap")
    def _to_store(self, serialize: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
        written = serialize(self)
        if info.context is not STORE:
            return written
        plain = {name: value for name, value in written.items() if name not in AliasSettings.model_fields}
        return plain | {"conduct": self.settled()}


# ------------------------------------------------------------------------------------- of the file


def _as_target(value: Any) -> Any:
    return {"target": value} if isinstance(value, str) else value


class TargetRow(Resource):
    target: str
    weight: Weight = 1


class AliasTable(AliasSettings):
    """An alias of the configuration file."""

    LATER = {
        "store_bodies": 7,
    }
    use_case: str | None = None
    targets: list[Annotated[TargetRow, BeforeValidator(_as_target)]] = []
    timeouts: TimeoutsWish = TimeoutsWish()

    def alias(self, name: str) -> model.Alias:
        """What the data plane is told."""
        targets = tuple(model.TargetRef(entry.target, entry.weight) for entry in self.targets)
        return model.Alias(name, targets, self.use_case, self.timeouts.set_ones(), **self.settled())
