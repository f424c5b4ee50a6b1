"""A price, as the file, the admin API and the store have it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from pydantic import SerializerFunctionWrapHandler, ValidationInfo, model_serializer, model_validator
from pydantic_core.core_schema import SerializationInfo

from headgate.catalog import money
from headgate.model import Price
from headgate.resources.fields import STORE, Resource, Usd


class PriceWish(Resource):
    """USD per million tokens, at most nine decimals; what is left out or null is unknown, which is not free."""

    input: Usd | None = None
    output: Usd | None = None
    cached_input: Usd | None = None
    cache_write: Usd | None = None

    def price(self, source: str) -> Price:
        """As the data plane has it, in nano-USD."""
        return money.price(self, source)

    @model_validator(mode="before")
    @classmethod
    def _from_store(cls, value: Any, info: ValidationInfo) -> Any:
        """The store holds ``model.Price``: nano-USD, and a source that is always the store."""
        if info.context is not STORE:
            return value
        return {name: Decimal(nano).scaleb(-9) for name in money.RATES if (nano := value.get(name)) is not None}

    @model_serializer(mode="wrap")
    def _to_store(self, serialize: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
        return msgspec.to_builtins(self.price(STORE)) if info.context is STORE else serialize(self)
