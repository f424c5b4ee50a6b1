"""The error for an unknown model: the missing key or provider, or the nearest name.  Pure."""

from __future__ import annotations

from headgate.catalog.names import BUILTIN, nearest
from headgate.catalog.offers import Offers
from headgate.errors import MODEL_NOT_FOUND, NO_PROVIDER_KEY, GatewayError
from headgate.model import Snapshot


def unknown(requested: str, snapshot: Snapshot, offers: Offers) -> GatewayError:
    """Return 503 for a known service without a key, else 404 with the nearest name."""
    prefix, slash, ident = requested.partition("/")
    prefix = prefix.strip().lower()
    if slash and ident and prefix in snapshot.presets and prefix not in snapshot.providers:
        return GatewayError(
            NO_PROVIDER_KEY,
            f"{quote(requested)} is a model of {prefix}, which has no key here; add one with: "
            f"headgate vault add {prefix}",
        )
    if makers := [name for name, models in snapshot.presets.items() if requested in models]:
        first = makers[0]
        if first in snapshot.providers:
            return _not_found(requested, f"; did you mean {first}/{requested}?")
        return GatewayError(
            NO_PROVIDER_KEY,
            f"{quote(requested)} is a model of {' and '.join(makers[:3])}, without a key here; add one with: "
            f"headgate vault add {first}",
        )
    return _not_found(requested, _near(requested, prefix if slash else "", ident, snapshot, offers))


def _near(requested: str, prefix: str, ident: str, snapshot: Snapshot, offers: Offers) -> str:
    """Return ``"; did you mean X?"``, else the next step."""
    if prefix and ident and prefix not in snapshot.providers:
        elsewhere = offers.of(ident)
        if elsewhere:
            return f"; did you mean {elsewhere[0][0].name}/{elsewhere[0][1]}?"
        if near := nearest(prefix, [*snapshot.providers, *snapshot.presets, BUILTIN]):
            return near.removesuffix("?") + f"/{_short(ident)}?"
    return offers.spellings.nearest(requested, snapshot.aliases) or "; name a configured one, or provider/model"


def _not_found(requested: str, more: str) -> GatewayError:
    return GatewayError(MODEL_NOT_FOUND, f"there is no model or alias {quote(requested)} here{more}", param="model")


def quote(name: str) -> str:
    """Return a client's name for a model, shortened and on one line."""
    return repr(_short(name))


def _short(name: str) -> str:
    return name if len(name) <= 100 else name[:97] + "…"
