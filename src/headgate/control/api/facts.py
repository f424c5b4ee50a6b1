"""What a wish may say about one model, and how it becomes what the store keeps: shared by providers and the catalog."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from headgate.control.api.aliases import TimeoutsWish
from headgate.control.api.views import Capability, ModelName, Text, Tokens, Wish
from headgate.control.objects.fields import Usd
from headgate.control.objects.registry import ModelBody
from headgate.model import Price

SOURCE = "store"  # Price.source of what was said here


class PriceWish(Wish):
    """USD per million tokens, at most nine decimals; what is left out or null is unknown, which is not free."""

    input: Usd | None = None
    output: Usd | None = None
    cached_input: Usd | None = None
    cache_write: Usd | None = None

    def price(self) -> Price:
        return Price(
            _nano(self.input), _nano(self.output), _nano(self.cached_input), _nano(self.cache_write), source=SOURCE
        )


class FactsWish(Wish):
    """What is known better here than in the price list; null or left out: not said."""

    title: Text | None = None
    context_window: Tokens | None = Field(default=None, description="Tokens.")
    max_output: Tokens | None = Field(default=None, description="Tokens.")
    capabilities: Annotated[list[Capability], Field(max_length=32)] | None = None
    price: PriceWish | None = None

    def body(self) -> ModelBody:
        return ModelBody(
            title=self.title,
            context_window=self.context_window,
            max_output=self.max_output,
            capabilities=None if self.capabilities is None else tuple(self.capabilities),
            price=None if self.price is None else self.price.price(),
        )


class ModelWish(FactsWish):
    """A declared model, as in the configuration file."""

    upstream_model: ModelName | None = Field(default=None, description="The id that is sent upstream, if different.")
    canonical: ModelName | None = Field(default=None, description="What the same model is called elsewhere.")
    timeouts: TimeoutsWish = TimeoutsWish()

    def body(self) -> ModelBody:
        facts = super().body()
        said = {name: getattr(facts, name) for name in facts.__struct_fields__}
        more = {
            "upstream_model": self.upstream_model,
            "canonical": self.canonical,
            "timeouts": self.timeouts.said(),
        }
        return ModelBody(**(said | more))


def _nano(usd: Decimal | None) -> int | None:
    """USD per million tokens → nano-USD per million; exact, nine decimals is all that comes through."""
    return None if usd is None else int(usd.scaleb(9))
