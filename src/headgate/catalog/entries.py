"""The catalog's entries: every model and alias of a Snapshot, with its known properties.  Pure.

Owns the listed names, their order, and an entry's form on the wire; ``selection`` picks from them.  Both planes answer
from it (``/v1/models`` and ``/admin/v1/catalog``).  The entries are public: they never contain an address, an account
or a key.  An unknown value is null, never 0.

A client sends an entry's id as ``model``.  It is an alias, or a declared model's own id, once for all the providers
that have it.  For known models of a provider that takes any id it is ``provider/model``.  The order is that of the
configuration, aliases first and the built-in provider last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from headgate.catalog.money import RATES, usd
from headgate.catalog.names import BUILTIN
from headgate.catalog.offers import Offer, Offers, price_of, ready
from headgate.model import Alias, ModelRow, Price, PriceTier, Provider, Snapshot

OWNER = "headgate"  # owned_by of aliases
_UNKNOWN_TIME = "1970-01-01T00:00:00Z"

# ------------------------------------------------------------------------------------- what an entry says


class TierInfo(Struct, frozen=True, gc=False):
    """The price of a call of more than ``above`` prompt tokens."""

    above: int
    input: float | None
    output: float | None
    cached_input: float | None
    cache_write: float | None


class PriceInfo(Struct, frozen=True):
    """USD per million tokens, null where unknown.  ``source`` is the price list's snapshot id."""

    input: float | None
    output: float | None
    cached_input: float | None
    cache_write: float | None
    source: str | None
    tiers: tuple[TierInfo, ...] = ()


class Info(Struct, frozen=True):
    """The ``headgate`` block.  An alias, and a model of several providers, has the facts of what it is served by now:
    the first that has a key.
    """

    alias: bool
    provider: str
    providers: tuple[str, ...]
    provider_model: str
    title: str | None
    kind: str
    context_window: int | None
    max_output: int | None
    capabilities: tuple[str, ...]
    price: PriceInfo | None
    free: bool
    training: str
    origin: str
    configured: bool
    aliases: tuple[str, ...]
    retired: bool
    uses_30d: int  # last: it alone changes by the minute


class Model(Struct, frozen=True):
    """One element of the list, as the clients of OpenAI and of Anthropic read it (``type``, ``display_name``,
    ``created_at``).  Providers do not publish when a model was made, so ``created`` is 0.
    """

    id: str
    object: str
    created: int
    owned_by: str
    type: str
    display_name: str
    created_at: str
    headgate: Info


class Entry(Struct, frozen=True):
    """One name and what is needed to select it.

    ``reach`` are the names by which a token may be allowed to use it, ``groups`` the providers under which it is
    found.  ``counted`` are its keys among the uses by ``provider/model``: none for an alias, which is counted by its
    name.
    """

    model: Model
    reach: tuple[str, ...]
    groups: tuple[str, ...]
    counted: tuple[str, ...]
    words: str
    cost: int | None  # nano-USD per million tokens, in and out
    last: bool

    @property
    def id(self) -> str:
        return self.model.id


class UseCounts(Protocol):
    """Requests of the last 30 days: by ``provider/model`` that served, and by the name that was asked for."""

    @property
    def models(self) -> Mapping[str, int]: ...

    @property
    def names(self) -> Mapping[str, int]: ...


def used(entry: Entry, uses: UseCounts) -> int:
    """How often in 30 days: an alias by its name, a model by what served under it."""
    counted = entry.counted
    if len(counted) == 1:  # nearly all: a list has thousands
        return uses.models.get(counted[0], 0)
    if entry.model.headgate.alias:
        return uses.names.get(entry.model.id, 0)
    return sum(uses.models.get(key, 0) for key in counted)


def shown(entry: Entry, uses: UseCounts) -> Model:
    """An entry as it reads on the wire (``msgspec.json.encode``, ``msgspec.to_builtins``)."""
    return replace(entry.model, headgate=replace(entry.model.headgate, uses_30d=used(entry, uses)))


# ------------------------------------------------------------------------------------- which entries there are


class Catalog:
    """The targets of a Snapshot's names.  ``offers`` may be given where somebody has them already."""

    def __init__(self, snapshot: Snapshot, offers: Offers | None = None) -> None:
        self._snapshot = snapshot
        self._offers = offers or Offers(snapshot.providers)
        self._named: dict[str, dict[str, None]] = {}  # ids at providers that take any, which aliases name
        self._leading: dict[tuple[str, str], dict[str, None]] = {}  # the aliases that lead to (provider, model id)
        for alias in snapshot.aliases.values():
            for provider, ident, _row in self._chain(alias):
                self._leading.setdefault((provider.name, ident), {})[alias.name] = None
                if provider.models is None:
                    self._named.setdefault(provider.name, {})[ident] = None

    def entries(self) -> Iterator[Entry]:
        """All of them, in order, no id twice: a few µs each, so that a caller with other things to do may pause.

        An alias that leads nowhere is left out, because it cannot be used.
        """
        aliases, rows = self._snapshot.aliases, self._offers.rows
        for alias in aliases.values():
            chain = self._chain(alias)
            if chain:
                yield _alias(alias, chain)
        listed = set(aliases)
        for provider in self._snapshot.providers.values():
            for row in (provider.models or {}).values():
                if row.id not in listed:
                    listed.add(row.id)
                    yield self._model(row.id, rows[row.id])
            for ident in self._open_ids(provider):
                name = f"{provider.name}/{ident}"
                if name not in listed and name not in rows:
                    listed.add(name)
                    yield self._model(name, self._offers.of(name))

    def find(self, name: str) -> Entry | None:
        """One entry by any name that resolves to it: also ``provider/model`` of a model that is listed by its own id.

        None where nothing has that name, and where nothing is known of it at a provider that takes any id.
        """
        alias = self._snapshot.aliases.get(name)
        if alias is not None:
            chain = self._chain(alias)
            return _alias(alias, chain) if chain else None
        offers = self._offers.of(name)
        if not offers or not any(row is not None or self._is_named(provider, ident) for provider, ident, row in offers):
            return None
        return self._model(name, offers)

    def _chain(self, alias: Alias) -> list[Offer]:
        return [offer for ref in alias.targets for offer in self._offers.of(ref.model)]

    def _open_ids(self, provider: Provider) -> Iterable[str]:
        if provider.models is not None:
            return ()
        return {**dict.fromkeys(provider.catalog), **self._named.get(provider.name, {})}

    def _is_named(self, provider: Provider, ident: str) -> bool:
        return ident in self._named.get(provider.name, ())

    def _model(self, name: str, offers: Sequence[Offer]) -> Entry:
        provider, _ident, row = serving(offers)
        groups = tuple(dict.fromkeys(offer[0].name for offer in offers))
        aliases: dict[str, None] = {}
        for offer in offers:
            aliases |= self._leading.get((offer[0].name, offer[1]), {})
        title = row.title if row is not None else None
        info = _info(offers, alias=False, title=title, origin=provider.origin, aliases=tuple(aliases))
        return _entry(name, provider.name, offers, groups, info)


def _alias(alias: Alias, chain: Sequence[Offer]) -> Entry:
    info = _info(chain, alias=True, title=alias.use_case, origin=alias.origin, aliases=())
    return _entry(alias.name, OWNER, chain, (OWNER,), info)


def serving(offers: Sequence[Offer]) -> Offer:
    """The one that is asked first."""
    return next((offer for offer in offers if ready(offer[0])), offers[0])


def _info(offers: Sequence[Offer], *, alias: bool, title: str | None, origin: str, aliases: tuple[str, ...]) -> Info:
    provider, ident, known_row = serving(offers)
    row = known_row or ModelRow(ident)
    price = price_of(provider, known_row)
    accounts = provider.accounts
    return Info(
        alias=alias,
        provider=provider.name,
        providers=tuple(dict.fromkeys(offer[0].name for offer in offers)),
        provider_model=row.upstream_model or ident,
        title=title,
        kind=row.kind,
        context_window=row.context_window,
        max_output=row.max_output,
        capabilities=row.capabilities,
        price=price_info(price),
        free=(price.input == 0 and price.output == 0) or (bool(accounts) and all(one.free for one in accounts)),
        training=provider.training,
        origin=origin,
        configured=ready(provider),
        aliases=aliases,
        retired=row.retired,
        uses_30d=0,
    )


def _entry(name: str, owner: str, offers: Sequence[Offer], groups: tuple[str, ...], info: Info) -> Entry:
    provider, ident, row = serving(offers)
    price = price_of(provider, row)
    return Entry(
        Model(name, "model", 0, owner, "model", info.title or name, _UNKNOWN_TIME, info),
        reach=(name, f"{provider.name}/{ident}"),
        groups=groups,
        counted=() if info.alias else tuple(dict.fromkeys(map(_served_as, offers))),
        words=f"{name}\n{info.title or ''}".casefold(),
        cost=None if price.input is None or price.output is None else price.input + price.output,
        last=owner == BUILTIN,
    )


def _served_as(offer: Offer) -> str:
    """Return its name in receipts."""
    provider, ident, row = offer
    return f"{provider.name}/{(row.upstream_model if row is not None else None) or ident}"


def price_info(price: Price) -> PriceInfo | None:
    """None where nothing is known."""
    if price.input is None and price.output is None:
        return None
    tiers = tuple(TierInfo(above=tier.above, **_rates(tier)) for tier in price.tiers)
    return PriceInfo(**_rates(price), source=price.source or None, tiers=tiers)


def _rates(price: Price | PriceTier) -> dict[str, float | None]:
    return {name: usd(getattr(price, name)) for name in RATES}
