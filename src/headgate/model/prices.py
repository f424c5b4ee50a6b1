"""What tokens cost, and the kinds of tokens that few calls have."""

from __future__ import annotations

from msgspec import Struct


class TokenDetails(Struct, frozen=True, array_like=True, gc=False):
    """Parts of a usage that have prices of their own at some providers.

    ``cache_write_1h`` is part of what is written to the cache; ``*_input`` are parts of the prompt, ``*_output`` of the
    completion.
    """

    cache_write_1h: int = 0
    audio_input: int = 0
    image_input: int = 0
    audio_output: int = 0
    image_output: int = 0


class PriceTier(Struct, frozen=True, gc=False):
    """What a call of more than ``above`` prompt tokens costs instead, all of it."""

    above: int
    input: int | None = None
    output: int | None = None
    cached_input: int | None = None
    cache_write: int | None = None


class PriceHours(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a call costs instead that ends in these minutes of the UTC day, ``end`` excluded; they may span midnight.

    What has no rate here costs ``percent`` of the usual.
    """

    start: int
    end: int
    percent: int = 100
    input: int | None = None
    output: int | None = None
    cached_input: int | None = None
    cache_write: int | None = None


class DetailRates(Struct, frozen=True, gc=False, omit_defaults=True):
    """nano-USD per million tokens of the kinds that few providers price apart; None: as the kind that it is part of."""

    cache_write_1h: int | None = None
    reasoning: int | None = None
    audio_input: int | None = None
    image_input: int | None = None
    audio_output: int | None = None
    image_output: int | None = None


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
    details: DetailRates | None = None
    hours: tuple[PriceHours, ...] = ()


FREE = Price(0, 0, 0, 0)
