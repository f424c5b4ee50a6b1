"""A price, as the file, the admin API and the store have it."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

import msgspec
from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic_core.core_schema import SerializationInfo

from headgate.catalog import money
from headgate.model import DetailRates, Price, PriceHours
from headgate.resources.fields import STORE, Resource, Usd, wrong

_DETAILS = DetailRates.__struct_fields__


def _minute(text: str) -> str:
    hour, _, minute = text.partition(":")
    if not (hour.isdecimal() and minute.isdecimal() and len(minute) == 2 and int(hour) < 24 and int(minute) < 60):
        raise wrong("a time of day is hours and minutes in UTC, such as 16:30")
    return text


TimeOfDay = Annotated[str, Field(max_length=5), AfterValidator(_minute)]


class _Rates(Resource):
    input: Usd | None = None
    output: Usd | None = None
    cached_input: Usd | None = None
    cache_write: Usd | None = None


class HoursWish(_Rates):
    """Other prices at these hours (UTC; `to` excluded): rates of their own, or a percentage of the usual ones."""

    begin: TimeOfDay = Field(alias="from")
    end: TimeOfDay = Field(alias="to")
    percent: Annotated[int, Field(ge=0, le=1000)] = 100

    def hours(self) -> PriceHours:
        """As the data plane has it."""
        rates = {name: money.nano(getattr(self, name)) for name in money.RATES}
        return PriceHours(_minutes(self.begin), _minutes(self.end), self.percent, **rates)


def _minutes(text: str) -> int:
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)


def _written(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


class PriceWish(_Rates):
    """USD per million tokens, at most nine decimals; what is left out or null is unknown, which is not free.

    The kinds from `cache_write_1h` on cost what the kind does that they are part of, where they have no price.
    """

    cache_write_1h: Usd | None = None
    reasoning: Usd | None = None
    audio_input: Usd | None = None
    image_input: Usd | None = None
    audio_output: Usd | None = None
    image_output: Usd | None = None
    hours: Annotated[list[HoursWish], Field(max_length=24)] = []

    def price(self, source: str) -> Price:
        """As the data plane has it, in nano-USD."""
        details = {name: money.nano(rate) for name in _DETAILS if (rate := getattr(self, name)) is not None}
        return msgspec.structs.replace(
            money.price(self, source),
            details=DetailRates(**details) if details else None,
            hours=tuple(one.hours() for one in self.hours),
        )

    @model_validator(mode="before")
    @classmethod
    def _from_store(cls, value: Any, info: ValidationInfo) -> Any:
        """The store holds ``model.Price``: nano-USD, and a source that is always the store."""
        if info.context is not STORE:
            return value
        hours = [
            {"from": _written(one["start"]), "to": _written(one["end"]), "percent": one.get("percent", 100)}
            | _usd(one, money.RATES)
            for one in value.get("hours", ())
        ]
        found = _usd(value, money.RATES) | _usd(value.get("details") or {}, _DETAILS)
        return found | ({"hours": hours} if hours else {})

    @model_serializer(mode="wrap")
    def _to_store(self, serialize: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
        return msgspec.to_builtins(self.price(STORE)) if info.context is STORE else serialize(self)


def _usd(rates: Any, names: tuple[str, ...]) -> dict[str, Decimal]:
    return {name: Decimal(nano).scaleb(-9) for name in names if (nano := rates.get(name)) is not None}
