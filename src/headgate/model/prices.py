"""What tokens cost."""

from __future__ import annotations

from msgspec import Struct


class PriceTier(Struct, frozen=True, gc=False):
    """What a call of more than ``above`` prompt tokens costs instead, all of it."""

    above: int
    input: int | None = None
    output: int | None = None
    cached_input: int | None = None
    cache_write: int | None = None


class Price(Struct, frozen=True, gc=False, omit_defaults=True):
    """nano-USD per million tokens; ``None`` is unknown, which is not the same as free.

    ``tiers`` come in rising order.  ``source`` is the price list's snapshot id: ``file``, ``store`` or
    ``genai-prices <version>``; empty where nothing is known.
    """

    input: int | None = None
    output: int | None = None
    cached_input: int | None = None
    cache_write: int | None = None
    tiers: tuple[PriceTier, ...] = ()
    source: str = ""


FREE = Price(0, 0, 0, 0)
