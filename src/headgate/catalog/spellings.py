"""Names that no row has in this spelling: find the known model, else the nearest names.  Pure.

Owns the spellings of one model by clients.  They omit its provider, use another case, prefix ``models/``, or append a
date or a tag.  The provider may also stand before a colon or after an ``@``.  Uses only the
providers' declared and known models (``Provider.catalog``).  Never guesses: two models that fit count as none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from headgate.catalog.names import BUILTIN, nearest
from headgate.model import ModelRow, Price, Provider

Offer = tuple[Provider, str, ModelRow | None]

LONGEST = 200  # characters of a name that is compared
MOST_COMPARED = 24  # names, in search of the nearest
_DATE = re.compile(r"[-@](?:\d{4}-\d{2}-\d{2}|20\d{6})$")
_AT_DATE = re.compile(r"@(20\d{6})$")
_LATEST_ENDS = ("latest", "default")
_LATEST = re.compile(r"[-@:](?:latest|default)$")
_BETWEEN = re.compile(r"[^a-z0-9]+")
_TAG = re.compile(r":([a-z0-9._-]{1,40})$")


class Spellings:
    """The models of one set of providers by all of their spellings.  Made when first needed: catalogs are long."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = {name: provider for name, provider in providers.items() if name != BUILTIN}
        self._exact: dict[str, list[Offer]] = {}
        self._folded: dict[str, list[Offer]] = {}
        self._tails: dict[str, list[Offer]] = {}  # by the part after the last slash of an id
        self._dated: dict[str, list[Offer]] = {}  # by the part before a date
        self._parts: dict[str, list[str]] = {}  # ids by the beginnings of their parts; made when first needed
        for provider in self._providers.values():
            for ident, row in _models(provider):
                offer = (provider, ident, row)
                folded = ident.casefold()
                if provider.models is None:
                    self._exact.setdefault(ident, []).append(offer)
                self._folded.setdefault(folded, []).append(offer)
                tail = folded.rpartition("/")[2]
                if tail != folded:
                    self._tails.setdefault(tail, []).append(offer)
                if folded[-1:].isdigit() or folded.endswith(_LATEST_ENDS):
                    base = _undated(folded)
                    if base != folded:
                        self._dated.setdefault(base, []).append(offer)

    # --------------------------------------------------------------------------------- which is meant

    def of(self, name: str) -> list[Offer]:
        """Return the offers of the model that ``name`` means, all of the same model; empty if there is none or if it
        is ambiguous.
        """
        if len(name) > LONGEST:
            return []
        offers = self._exact.get(name)
        if offers:
            return _same(offers, self._tails.get(name.casefold(), []))
        plain = name.strip().casefold()
        return self._provider_first(name.strip()) or self._spelled(plain) or self._based(name.strip(), plain)

    def at(self, provider: Provider, ident: str) -> Offer | None:
        """Return the offer for ``ident`` after a provider's slash, if it has the model in another spelling."""
        if len(ident) > LONGEST:
            return None
        plain = ident.strip().casefold()
        short = plain.removeprefix("models/")
        for key, index in ((plain, self._folded), (short, self._folded), (_base(short), self._folded)):
            mine = [offer for offer in index.get(key, ()) if offer[0] is provider]
            if mine:
                return mine[0] if key in (plain, short) else _written(mine[0], ident.strip(), key)
        dated = [offer for offer in self._dated.get(_LATEST.sub("", short), ()) if offer[0] is provider]
        return _newest(dated) if dated and provider.models is not None else None

    def _provider_first(self, name: str) -> list[Offer]:
        """``@openai/gpt-4o``, ``openai:gpt-4o`` and ``gpt-4o@openai``."""
        for prefix, ident in (name[1:].split("/", 1) if name.startswith("@") and "/" in name else (name, ""),
                              name.split(":", 1) if ":" in name else (name, ""),
                              reversed(name.rsplit("@", 1)) if "@" in name else (name, "")):  # fmt: skip
            provider = self._providers.get(prefix)
            if provider is None or not ident:
                continue
            rows = dict(_models(provider))
            if ident in rows:
                return [(provider, ident, rows[ident])]
            found = self.at(provider, ident)
            return [found] if found else [(provider, ident, None)] if provider.models is None else []
        return []

    def _spelled(self, plain: str) -> list[Offer]:
        """Find another case, a prefix ``models/``, a date after ``@``, or an aggregator's id without its maker."""
        for key in dict.fromkeys((plain, plain.removeprefix("models/"), plain.replace("@", "-"))):
            exact, tails = self._folded.get(key, []), self._tails.get(key, [])
            if found := _same(exact, tails) if exact else _unique(tails):
                return found
        return []

    def _based(self, name: str, plain: str) -> list[Offer]:
        """Find the model without date or tag.  A provider that takes any id gets the name as it was written."""
        plain = plain.removeprefix("models/")
        base = _base(plain)
        if base != plain:
            known = self._folded.get(base, []) or _unique(self._tails.get(base, []))
            written = [_written(offer, name.removeprefix("models/"), base) for offer in known]
            if found := [offer for offer in written if offer is not None]:
                return found
        dated = self._dated.get(_LATEST.sub("", plain), [])
        return [_newest([offer for offer in dated if offer[0] is dated[0][0]])] if dated else []

    # --------------------------------------------------------------------------------- what is nearest

    def nearest(self, name: str, others: Iterable[str]) -> str:
        """Return ``"; did you mean X?"`` or an empty string.  ``others``: names that are no models of a provider."""
        if len(name) > LONGEST:
            return ""
        prefix, slash, ident = name.partition("/")
        provider = self._providers.get(prefix) if slash else None
        if provider is not None:
            mine = dict(_models(provider))
            found = nearest(ident, [known for known in self._likely(ident) if known in mine])
            return found.replace("did you mean ", f"did you mean {prefix}/") if found else ""
        base = _base(name.casefold())
        return nearest(name, [*others, *self._likely(name)]) or nearest(base, self._likely(base))

    def _likely(self, name: str) -> list[str]:
        """Return the ids that share most beginnings of parts with ``name``.  A comparison of two names costs 50 µs."""
        if not self._parts:
            for offers in self._folded.values():
                for part in _beginnings(offers[0][1]):
                    self._parts.setdefault(part, []).append(offers[0][1])
        shared = Counter(ident for part in _beginnings(name) for ident in self._parts.get(part, ()))
        return [ident for ident, _count in shared.most_common(MOST_COMPARED)]


def _models(provider: Provider) -> Iterable[tuple[str, ModelRow]]:
    return (provider.catalog if provider.models is None else provider.models).items()


def _base(folded: str) -> str:
    """Return a name without ``-2024-07-18``, ``@20240620``, ``-latest``, ``:free``."""
    return _undated(_TAG.sub("", folded))


def _undated(folded: str) -> str:
    return _DATE.sub("", _LATEST.sub("", folded))


def _same(offers: list[Offer], tails: list[Offer]) -> list[Offer]:
    """Return the offers of one model: those with the first one's id, then aggregators' ids that end in it."""
    first = _canonical(offers[0])
    found = [offer for offer in offers if _canonical(offer) == first]
    there = {offer[0].name for offer in found}
    return found + [offer for offer in _unique(tails) if offer[0].name not in there]


def _unique(tails: list[Offer]) -> list[Offer]:
    """Return the offers of the first id, of ids that end alike; none if makers differ, as models may differ then."""
    ids = {offer[1].casefold() for offer in tails}
    return tails if len(ids) == 1 else []


def _canonical(offer: Offer) -> str | None:
    return offer[2].canonical if offer[2] is not None else None


def _newest(offers: list[Offer]) -> Offer:
    """Return the offer with the newest date at the end of its id; ``latest`` is newer than every date."""
    return max(offers, key=lambda offer: offer[1].casefold())


def _written(offer: Offer, name: str, base: str) -> Offer | None:
    """Return the model under the dated or tagged name of the request, if its provider takes any id, else None.  The
    date of another snapshot, or the tag of another price, is another model.

    A date changes no price; a tag such as ``:free`` does, so nothing is known of it then.
    """
    provider, ident, row = offer
    if provider.models is not None or row is None:
        return offer if _LATEST.sub("", name.casefold()) == base else None
    full = ident + name[len(base) :] if name.casefold().startswith(base) else name
    full = _AT_DATE.sub(r"-\1", full)  # how Vertex AI spells it, which no row here does
    price = Price() if _TAG.search(name.casefold()) else row.price
    return provider, full, replace(row, id=full, upstream_model=None, price=price)


def _beginnings(name: str) -> set[str]:
    parts = [part for part in _BETWEEN.split(name.casefold()) if part]
    return {*parts, *(part[:3] for part in parts)}
