"""Prices and properties of models, from the embedded price list (genai-prices) and the rows of ``providers/``.

Fills only gaps: a price of the file, the store or a row stays whole and unchanged.  A price that is not per token (by
the time of day, with a fee per request) stays unknown.  Unknown is None and never 0.  The list is part of an installed
package; this module does not use the network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from importlib.metadata import version
from typing import TYPE_CHECKING

from msgspec.structs import replace

from headgate.catalog.money import nano
from headgate.catalog.presets import Row, catalog
from headgate.model import ModelRow, Price, PriceTier, Provider

if TYPE_CHECKING:
    from genai_prices import types as listed

LOCAL = Price(0, 0, 0, 0, source="local")  # the operator's own engine: tokens cost nothing

_FIELDS = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")  # in the order of model.Price
# Fees of every call that do not depend on tokens, and outputs whose share is not counted apart.  With one of them the
# price per token alone would be wrong.  Fees for what a client asks for apart (searches, audio) are left out.
_UNSAYABLE = ("requests_kcount", "input_mchars", "output_reasoning_mtok", "output_citation_mtok")
_ASKABLE = re.compile(r"[!-)+-~]{1,200}")  # printable, no spaces; a star stands for many models
_FRAGMENT = re.compile(r"^ft:|\.ft-|[-.:/]$")  # beginnings of names of other models; not themselves models
_KINDS = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"embed|(^|/)(bge|gte|e5|voyage)-", "embedding"),
        (r"whisper|transcribe", "transcription"),
        (r"(^|[-/])tts|orpheus|speech|voice|lyria", "speech"),
        (r"image|dall-e|flux|imagen|diffusion|banana", "image"),
        (r"realtime|(^|[-/])live|moderation|guard|rerank|(^|[-/])ocr|decider|sora|(^|[-/])veo|video|robotics", "other"),
        (r"^(ada|babbage|curie|davinci|text-)|gpt-3\.5-turbo-instruct|computer-use", "other"),
    )
)

_source = ""
_lists: dict[str, _List] = {}
_catalogs: dict[str, tuple[Row, date, dict[str, ModelRow]]] = {}


def price_list() -> str:
    """The price list's snapshot id, ``genai-prices 0.2.3``; empty before ``enrich`` has run for the first time."""
    return _source


def enrich(providers: Mapping[str, Provider], rows: Mapping[str, Row], today: date) -> dict[str, Provider]:
    """Return the same providers, in the same order, with the known values of their models.  Gaps of ``models`` rows
    are filled; ``catalog`` is added if any model id passes.

    ``today`` (UTC) decides which price holds.  Blocking: 0.4 s on the first call (call it in a thread), then < 20 ms.
    Apply stored overrides before: their values stay.
    """
    _load()
    by_url = {row.base_url: row for row in rows.values() if not row.local}
    found = {}
    for name, provider in providers.items():
        row = rows.get(provider.preset or "") or by_url.get(provider.base_url)
        found[name] = provider if row is None or provider.origin == "builtin" else _enriched(provider, row, today)
    return found


def kind_of(model: str) -> str:
    """Return a model's kind by its name (see ``model.ModelRow``); the default is ``chat``."""
    lowered = model.lower()
    return next((kind for pattern, kind in _KINDS if pattern.search(lowered)), "chat")


def _enriched(provider: Provider, row: Row, today: date) -> Provider:
    known = _known(row, today)
    if provider.models is not None:
        filled = {
            model: _filled(own, _looked_up(row, known, own.upstream_model or model, today), row)
            for model, own in provider.models.items()
        }
        return replace(provider, models=filled)
    merged: Mapping[str, ModelRow] = known
    if provider.catalog:
        own_rows = {model: _filled(own, known.get(model), row) for model, own in provider.catalog.items()}
        merged = {**known, **own_rows}
    price = LOCAL if row.local and provider.price == Price() else provider.price
    return replace(provider, catalog=merged, price=price)


def _filled(own: ModelRow, fact: ModelRow | None, row: Row) -> ModelRow:
    """Return ``own`` with its gaps filled."""
    fact = fact or ModelRow(id=own.id, kind=kind_of(own.upstream_model or own.id))
    price = own.price
    if price == Price():
        price = LOCAL if row.local else fact.price
    return replace(
        own,
        price=price,
        title=own.title or fact.title,
        canonical=own.canonical or fact.canonical,
        context_window=own.context_window or fact.context_window,
        max_output=own.max_output or fact.max_output,
        capabilities=own.capabilities or fact.capabilities,
        kind=fact.kind if own.kind == "chat" else own.kind,
        retired=own.retired or fact.retired,
    )


# ------------------------------------------------------------------------------------- one row's models


def _known(row: Row, today: date) -> dict[str, ModelRow]:
    """Return the models of the row and the price list, by id: the row's own models first."""
    remembered = _catalogs.get(row.name)
    if remembered is not None and remembered[:2] == (row, today):
        return remembered[2]
    prices = _lists.get(row.prices or "")
    ids = re.compile(row.ids) if row.ids else _ASKABLE
    known = {model: _filled(own, _listed(row, model, today), row) for model, own in catalog(row).items()}
    for model in prices.ids() if prices else ():
        if model not in known and _is_askable(model) and ids.fullmatch(model):
            fact = _listed(row, model, today)
            if fact is not None:
                known[model] = fact
    _catalogs[row.name] = (row, today, known)
    return known


def _is_askable(model: str) -> bool:
    return _ASKABLE.fullmatch(model) is not None and _FRAGMENT.search(model) is None


def _looked_up(row: Row, known: Mapping[str, ModelRow], model: str, today: date) -> ModelRow | None:
    return known.get(model) or _listed(row, model, today)


def _listed(row: Row, model: str, today: date) -> ModelRow | None:
    """Return the price list's properties of one model; None if it does not list it."""
    prices = _lists.get(row.prices or "")
    info = prices.find(model) if prices else None
    free = Price(0, 0, 0, 0, source=f"providers/{row.name}.toml")
    is_free = row.free_suffix is not None and model.endswith(row.free_suffix)
    if info is None:
        return ModelRow(id=model, price=free, kind=kind_of(model)) if is_free else None
    price = free if is_free else _price(info, today)
    return ModelRow(
        id=model,
        title=info.name,
        context_window=info.context_window,
        price=price,
        kind=kind_of(model),
        retired=bool(info.deprecated) or model in row.retired or info.id in row.retired,
    )


# ------------------------------------------------------------------------------------- the price list


@dataclass(frozen=True)
class _List:
    """One provider of the price list.  ``owners``: exact names → position; ``patterns``: models with other rules."""

    provider: listed.Provider
    everyone: list[listed.Provider]
    owners: Mapping[str, int]
    patterns: tuple[tuple[int, listed.ModelInfo], ...]

    def ids(self) -> Iterator[str]:
        """Yield the names of its models."""
        for info in self.provider.models:
            if info.is_match(info.id):
                yield info.id
            yield from _equals(info.match)

    def find(self, model: str) -> listed.ModelInfo | None:
        """As ``Provider.find_model``, which tries every model of a list of a thousand."""
        position = self.owners.get(model.lower())
        for place, info in self.patterns:
            if position is not None and place > position:
                break
            if info.is_match(model):
                return info
        if position is not None:
            return self.provider.models[position]
        if self.provider.fallback_model_providers:  # Azure offers models of other makers
            return self.provider.find_model(model, all_providers=self.everyone)
        return None


def _load() -> None:
    global _source
    if _source:
        return
    # Late: 0.4 s and 40 MB that only this needs, and only after the first answer
    from genai_prices.data import providers  # noqa: PLC0415

    for provider in providers:
        owners: dict[str, int] = {}
        patterns = []
        for place, info in enumerate(provider.models):
            names = list(_equals(info.match))
            for name in names:
                owners.setdefault(name.lower(), place)
            if len(names) != _clauses(info.match):
                patterns.append((place, info))
        _lists[provider.id] = _List(provider, providers, owners, tuple(patterns))
    _source = f"genai-prices {version('genai-prices')}"


def _equals(clause: object) -> Iterator[str]:
    """Yield the exact names of a match rule; its other parts (prefixes, patterns) name no model."""
    if (name := getattr(clause, "equals", None)) is not None:
        yield name
    for part in getattr(clause, "or_", ()):
        yield from _equals(part)


def _clauses(clause: object) -> int:
    parts = getattr(clause, "or_", None)
    return 1 if parts is None else sum(map(_clauses, parts))


def _price(info: listed.ModelInfo, today: date) -> Price:
    """Return the price that holds all of today; Price() if there is none."""
    prices = _holding(info, today)
    if prices is None or any(getattr(prices, field, None) for field in _UNSAYABLE):
        return Price()
    values = [getattr(prices, field) for field in _FIELDS]
    starts = sorted({tier.start for value in values for tier in getattr(value, "tiers", ())})
    tiers = tuple(PriceTier(start, *_nanos(values, start + 1)) for start in starts)
    price = Price(*_nanos(values, 0), tiers)
    return Price() if price.input is None and price.output is None else replace(price, source=_source)


def _holding(info: listed.ModelInfo, today: date) -> listed.ModelPrice | None:
    """Return the last price whose condition holds.  None if one by the time of day comes first, because any choice
    would be wrong for a part of the day.
    """
    if not isinstance(info.prices, list):
        return info.prices
    for conditional in reversed(info.prices):
        start = getattr(conditional.constraint, "start_date", None)
        if conditional.constraint is None or (start is not None and today >= start):
            return conditional.prices
        if start is None:
            return None
    return info.prices[0].prices if info.prices else None


def _nanos(values: list[object], prompt: int) -> tuple[int | None, int | None, int | None, int | None]:
    first, second, third, fourth = (_holding_nano(value, prompt) for value in values)
    return first, second, third, fourth


def _holding_nano(value: object, prompt: int) -> int | None:
    """Return nano-USD per million tokens of a call with this many prompt tokens; None if unknown or finer."""
    usd = getattr(value, "base", value)
    for tier in getattr(value, "tiers", ()):
        if prompt > tier.start:
            usd = tier.price
    if not isinstance(usd, Decimal) or usd.scaleb(9) % 1:
        return None
    return nano(usd)
