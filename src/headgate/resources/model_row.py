"""What is declared of one model: its facts, its name upstream, its price, what becomes of the client's parameters.

``FactsWish`` is what the operator knows better than the price list, ``ModelWish`` a model of a stored provider,
``ModelTable`` a model of the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field

from headgate.catalog.presets import Prefill, YesNo
from headgate.model import ModelRow, Price
from headgate.resources.fields import (
    STORE,
    Capability,
    ModelName,
    Resource,
    Text,
    Tokens,
    as_prefill,
    as_yes_no,
    capability,
    wrong,
)
from headgate.resources.price import PriceWish
from headgate.resources.timeouts import TimeoutsWish


class _ModelFields(Resource):
    """``SOURCE``: the ``Price.source`` of what is declared here."""

    SOURCE: ClassVar[str]

    def row(self, ident: str) -> ModelRow:
        """The row of a model that nothing else is known of."""
        return self.over(ModelRow(ident))

    def over(self, row: ModelRow) -> ModelRow:
        """``row`` with what is declared here in its place."""
        return msgspec.structs.replace(row, **self.declared())

    def beneath(self, row: ModelRow) -> ModelRow:
        """``row`` with what is declared here where it says nothing."""
        known = {name for name in ("title", "context_window", "max_output") if getattr(row, name) is not None}
        if row.capabilities:
            known.add("capabilities")
        if row.price != Price():
            known.add("price")
        declared = self.declared()
        return msgspec.structs.replace(row, **{name: declared[name] for name in declared if name not in known})

    def declared(self) -> dict[str, Any]:
        """What is set, by the names and in the types of ``model.ModelRow``."""
        found = {name: self._plain(value) for name, value in self if value is not None}
        return {name: value for name, value in found.items() if value != {}}

    def _plain(self, value: Any) -> Any:
        match value:
            case PriceWish():
                return value.price(self.SOURCE)
            case TimeoutsWish():
                return value.set_ones()
            case list():
                return tuple(value)
            case _:
                return value


class FactsWish(_ModelFields):
    """What is known better here than in the price list; null or left out: not said."""

    SOURCE = STORE
    title: Text | None = None
    context_window: Tokens | None = Field(default=None, description="Tokens.")
    max_output: Tokens | None = Field(default=None, description="Tokens.")
    capabilities: Annotated[list[Capability], Field(max_length=32)] | None = None
    price: PriceWish | None = None


class ModelWish(FactsWish):
    """A declared model, as in the configuration file."""

    upstream_model: ModelName | None = Field(default=None, description="The id that is sent upstream, if different.")
    canonical: ModelName | None = Field(default=None, description="What the same model is called elsewhere.")
    timeouts: TimeoutsWish = TimeoutsWish()


# ------------------------------------------------------------------------------------- of the file


def _parameters(value: Iterable[str]) -> None:
    for name in value:
        if name in ("model", "messages", "stream", "stream_options", "headgate"):
            raise wrong(f"{name!r} is the gateway's own to set")


def _parameter_names(value: list[str]) -> list[str]:
    _parameters(value)
    return value


def _parameter_values(value: dict[str, Any]) -> dict[str, Any]:
    _parameters(value)
    return value


def _parameter_map(value: dict[str, str]) -> dict[str, str]:
    _parameters([*value, *value.values()])
    return value


class Params(Resource):
    """What becomes of the client's parameters: set where missing, taken out, renamed."""

    default: Annotated[dict[str, Any], AfterValidator(_parameter_values)] = {}
    drop: Annotated[list[str], AfterValidator(_parameter_names)] = []
    map: Annotated[dict[str, str], AfterValidator(_parameter_map)] = {}


class ModelTable(_ModelFields):
    """A model of the configuration file."""

    LATER = {"tokenizer": None}
    SOURCE = "file"
    upstream_model: Annotated[str, Field(min_length=1)] | None = None
    canonical: str | None = None
    context_window: Tokens | None = None
    max_output: Tokens | None = None
    capabilities: list[Annotated[str, AfterValidator(capability)]] = []
    prefill: Annotated[Prefill, BeforeValidator(as_prefill)] | None = None
    prefill_trims: Annotated[YesNo, BeforeValidator(as_yes_no)] | None = None
    price: PriceWish = PriceWish()
    timeouts: TimeoutsWish = TimeoutsWish()
    params: Params = Params()

    def declared(self) -> dict[str, Any]:
        found = super().declared()
        params = found.pop("params")
        if self.price == PriceWish():
            del found["price"]  # nothing is said of it: the price list may know more
        return found | {
            "param_defaults": {name: msgspec.json.encode(value) for name, value in params.default.items()},
            "param_drop": tuple(params.drop),
            "param_map": params.map,
        }
