"""The providers' models that serve a name, resolved in WIRE's order after the aliases.  Pure.

The order of resolution is:

1. A model id of the providers' rows.  One id at several providers is a pool in their order, if they mean the same model
   by it (``canonical``).  The model's other ids follow.
2. ``provider/model id``, split at the first slash.
3. The catalogs of providers that take any id, and other spellings (``spellings``).

The router plans by it and the catalog lists by it, so that every listed model can be requested.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.catalog.spellings import Offer, Spellings
from headgate.model import ModelRow, Price, Provider

__all__ = ["Offer", "Offers", "known", "price_of", "ready"]


class Offers:
    """The offers of one set of providers.  An Offer is a provider, the model's id there, and its row.  The row is None
    if the provider takes any id and its catalog does not have this one.
    """

    __slots__ = ("_providers", "_spellings", "rows")

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = providers
        self._spellings: Spellings | None = None
        declared = [(provider, row) for provider in providers.values() for row in (provider.models or {}).values()]
        named: dict[str, list[Offer]] = {}
        same: dict[str, list[Offer]] = {}
        for provider, row in declared:
            named.setdefault(row.id, []).append((provider, row.id, row))
            if row.canonical is not None:
                same.setdefault(row.canonical, []).append((provider, row.id, row))
        # By the declared models' own ids.
        self.rows = {ident: _one_model(pool, same) for ident, pool in named.items()}

    def of(self, name: str) -> list[Offer]:
        """Return the offers in the order to ask; empty if there is none.  Do not change the list."""
        rows = self.rows.get(name)
        if rows:
            return rows
        prefix, slash, ident = name.partition("/")
        provider = self._providers.get(prefix)
        if not slash or not ident or provider is None:
            return self.spellings.of(name)
        known = provider.catalog if provider.models is None else provider.models
        row = known.get(ident)
        if row is not None or not known:
            return [(provider, ident, row)] if row is not None or provider.models is None else []
        ident_here = self.spellings.at(provider, ident)
        if ident_here is not None:
            return [ident_here]
        return [(provider, ident, None)] if provider.models is None else []

    @property
    def spellings(self) -> Spellings:
        """Return the other readings of names, and the search for near ones."""
        if self._spellings is None:
            self._spellings = Spellings(self._providers)
        return self._spellings


def _one_model(pool: list[Offer], same: Mapping[str, list[Offer]]) -> list[Offer]:
    """Return the offers of the first one's model: those of this id, then those of its other ids."""
    canonical = _canonical(pool[0])
    agreeing = [offer for offer in pool if _canonical(offer) == canonical]
    others = same[canonical] if canonical is not None else []
    return agreeing + [offer for offer in others if offer[1] != pool[0][1]]


def _canonical(offer: Offer) -> str | None:
    return offer[2].canonical if offer[2] is not None else None


def ready(provider: Provider) -> bool:
    """True if the provider can be asked: it has a key, or needs none."""
    return provider.auth == "none" or bool(provider.accounts)


def price_of(provider: Provider, row: ModelRow | None) -> Price:
    """Return the price of a model there.  At a provider that takes any id, the provider's own price fills the gaps of
    its catalog.
    """
    if row is None or (provider.models is None and row.price.input is None and row.price.output is None):
        return provider.price
    return row.price


def known(price: Price) -> bool:
    """True if the price is enough to compute a call's cost."""
    return price.input is not None and price.output is not None
