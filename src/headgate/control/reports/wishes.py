"""The bodies of the admin API's questions about money."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from headgate.resources.fields import ProviderName, Resource

MAX_USD = 1_000_000


class RepriceWish(Resource):
    """A window of calls, and whether corrections are posted."""

    since: Annotated[str | None, Field(max_length=64)] = None
    until: Annotated[str | None, Field(max_length=64)] = None
    apply: bool = False


class ChargedWish(Resource):
    """One line of a provider's export."""

    day: date
    cost_usd: Annotated[Decimal | None, Field(ge=-MAX_USD, le=MAX_USD, decimal_places=9)] = None
    input_tokens: Annotated[int | None, Field(ge=0, le=1 << 50)] = None
    output_tokens: Annotated[int | None, Field(ge=0, le=1 << 50)] = None


class ReconcileWish(Resource):
    """The lines, and the names that the provider has here."""

    providers: Annotated[list[ProviderName], Field(min_length=1, max_length=100)]
    rows: Annotated[list[ChargedWish], Field(max_length=20_000)]
