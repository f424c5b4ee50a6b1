"""Convert USD and nano-USD, for prices and costs.  Pure."""

from __future__ import annotations

from decimal import Decimal

from headgate.model import Price

NANO = 1_000_000_000
RATES = ("input", "output", "cached_input", "cache_write")  # of a price, in the order of model.Price


def nano(usd: Decimal | None) -> int | None:
    """Return USD as nano-USD, exactly: the checks of a price allow at most nine decimals."""
    return None if usd is None else int(usd.scaleb(9))


def usd(nano: int | None) -> float | None:
    """Return nano-USD as USD, the form for people and clients."""
    return None if nano is None else int(nano) / NANO


def price(rates: object, source: str) -> Price:
    """Return the price from an object that has the RATES in USD per million tokens."""
    return Price(**{name: nano(getattr(rates, name)) for name in RATES}, source=source)  # type: ignore[arg-type]
