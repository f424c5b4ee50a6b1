"""GET /models, /models/{id}, /aliases and /providers: answered from the Snapshot, whether control is there or not.

Owns the rights to read them and their cache.  One snapshot's entries are made at the first question, a millisecond at
a time, so that no stream waits for a list.  Whole bodies are kept for as long as they are valid, within limits.  The
lists never contain addresses, accounts or keys.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from secrets import token_bytes
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from headgate.catalog import entries, parameters, selection
from headgate.catalog.entries import Catalog, Entry
from headgate.catalog.names import tenant_of
from headgate.catalog.offers import ready
from headgate.errors import MODEL_NOT_FOUND, GatewayError
from headgate.model import Grant, Snapshot
from headgate.policy import auth
from headgate.policy.routing.router import Router
from headgate.process.channel import Uses
from headgate.serving.loop.fiber import Signal
from headgate.serving.uplink.directory import SnapshotDirectory
from headgate.wire.codec import encode
from headgate.wire.http import Request

SLICE_S = 0.001  # of making entries before other calls have their turn
KEPT_BYTES = 8 << 20  # of bodies
KEY_BYTES = 1 << 10  # what keeping one costs beside its bytes
MAX_ID = 256

_PUBLIC = b"Cache-Control: no-cache\r\nVary: Authorization, X-Api-Key\r\n"
_PRIVATE = b"Cache-Control: private, no-cache\r\nVary: Authorization, X-Api-Key\r\n"


class TaggedBody(NamedTuple):
    """A body, its ETag, and further header lines."""

    body: bytes
    etag: bytes
    fields: bytes


class Lists:
    """The operations of the routes.  Each raises GatewayError: 401 for an invalid token, 403 for one without
    ``gate:models`` if the catalog is not public, 400 for an unknown parameter.
    """

    def __init__(self, directory: SnapshotDirectory, public: bool) -> None:
        self._directory = directory
        self._public = public
        self._shelf = _Shelf(directory.router)
        self._pages = _Pages()

    async def models(self, request: Request) -> TaggedBody:
        """The catalog, as far as the asker may use it."""
        grant = self._admit(request)
        wanted = selection.read(request.query)
        shelf = self._current()
        await shelf.filled()
        allowed, tenant = _bounds(grant)
        uses = self._directory.uses
        key = ("models", request.query, allowed, tenant)
        return self._pages.get(key, shelf, uses, lambda: shelf.page(wanted, uses, allowed, tenant), _fields(grant))

    async def model(self, request: Request) -> TaggedBody:
        """One entry, by any name that resolves to it; its id may have slashes, percent-encoded or not."""
        grant = self._admit(request)
        parameters.read(request.query)
        name = rest_of(request.path, b"/models/") or ""
        entry = self._current().catalog.find(name)
        if entry is None or not _may(grant, name, entry):
            raise GatewayError(
                MODEL_NOT_FOUND,
                f"the catalog has no model or alias {name[:100]!r}; GET /v1/models lists what there is",
                param="model",
            )
        body = encode(entries.shown(entry, self._directory.uses))
        return TaggedBody(body, _etag(body), _fields(grant))

    async def aliases(self, request: Request) -> TaggedBody:
        """Return every alias with its chain, also aliases that lead nowhere: their ``why`` names the gap."""
        grant = self._admit(request)
        parameters.read(request.query)
        shelf, uses = self._current(), self._directory.uses
        key = ("aliases", *_bounds(grant))
        return self._pages.get(key, shelf, uses, lambda: _aliases(shelf, uses, grant), _fields(grant))

    async def providers(self, request: Request) -> TaggedBody:
        """Return the providers' names and states, without addresses and accounts."""
        grant = self._admit(request)
        parameters.read(request.query)
        shelf = self._current()
        return self._pages.get(
            ("providers",), shelf, self._directory.uses, lambda: _providers(shelf.snapshot), _fields(grant)
        )

    def _admit(self, request: Request) -> Grant | None:
        """Return the caller's grant; None without a token, if the catalog is public.  A token that is sent must be
        valid.
        """
        if self._public and not auth.carried(request.headers):
            return None
        directory = self._directory
        scope = None if self._public else "gate:models"
        return auth.check(request.headers, directory.snapshot.tokens, directory.digester, time.time(), scope)

    def _current(self) -> _Shelf:
        router = self._directory.router
        if not self._shelf.holds(router.snapshot):
            self._shelf = _Shelf(router)
        return self._shelf


class _Shelf:
    """One world's entries, their JSON without uses, and their orders with the uses of now."""

    def __init__(self, router: Router) -> None:
        self.snapshot = router.snapshot
        self.catalog = Catalog(router.snapshot, router.offers)
        self._coming = self.catalog.entries()
        self._has_tenants = any(map(tenant_of, router.snapshot.aliases))
        self._entries: list[Entry] = []
        self._texts: dict[str, bytes] = {}
        self._waiting: list[Signal[None]] = []
        self._full = False
        self._orders: dict[str, list[Entry]] = {}
        self._ordered_by: Uses | None = None

    def holds(self, snapshot: Snapshot) -> bool:
        """Tokens come and go without changing what there is."""
        mine = self.snapshot
        return mine.providers is snapshot.providers and mine.aliases is snapshot.aliases

    def filled(self) -> Signal[None]:
        """Set when all entries are there; the first question makes them."""
        signal: Signal[None] = Signal()
        if self._full:
            signal.set(None)
            return signal
        self._waiting.append(signal)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._fill)
        return signal

    def _fill(self) -> None:
        end = time.perf_counter() + SLICE_S
        for entry in self._coming:
            self._entries.append(entry)
            self._texts[entry.id] = encode(entry.model)
            if time.perf_counter() > end:
                asyncio.get_running_loop().call_soon(self._fill)
                return
        self._full = True
        waiting, self._waiting = self._waiting, []
        for signal in waiting:
            signal.set(None)

    def page(self, wanted: selection.CatalogQuery, uses: Uses, allowed: tuple[str, ...], tenant: str) -> bytes:
        every = self._ordered(wanted.sort_by, uses)
        if self._has_tenants:
            every = [entry for entry in every if tenant_of(entry.id) in (None, tenant)]
        found, total = selection.page(every, wanted, frozenset(allowed))
        texts = self._texts
        rows = b",".join(
            [
                _with(texts[entry.id], count) if (count := entries.used(entry, uses)) else texts[entry.id]
                for entry in found
            ]
        )
        more = b"true" if wanted.offset + len(found) < total else b"false"
        first, last = (encode(found[i].id if found else None) for i in (0, -1))
        return b'{"object":"list","data":[%b],"has_more":%b,"first_id":%b,"last_id":%b,"total":%d}' % (
            rows, more, first, last, total,
        )  # fmt: skip

    def _ordered(self, sort_by: str, uses: Uses) -> list[Entry]:
        if self._ordered_by is not uses:
            self._ordered_by = uses
            self._orders.clear()
        if sort_by not in self._orders:
            self._orders[sort_by] = selection.ordered(self._entries, sort_by, uses)
        return self._orders[sort_by]


def _with(text: bytes, count: int) -> bytes:
    """``uses_30d`` is the last member of an entry's last object, and 0 in ``text``."""
    return b"%b%d}}" % (text[:-3], count)


class _Pages:
    """Bodies that hold as long as the shelf and the uses that they were made of."""

    def __init__(self) -> None:
        self._made_of: tuple[object, object] = (None, None)
        self._serial = b""
        self._bodies: dict[tuple[object, ...], tuple[bytes, bytes]] = {}
        self._size = 0

    def get(
        self, key: tuple[object, ...], shelf: _Shelf, uses: Uses, make: Callable[[], bytes], fields: bytes
    ) -> TaggedBody:
        if self._made_of[0] is not shelf or self._made_of[1] is not uses:
            self._made_of = (shelf, uses)
            self._serial = token_bytes(16)  # hashing 2,000 entries takes as long as writing them down
            self._clear()
        found = self._bodies.get(key)
        if found is None:
            body = make()
            found = (body, _etag(self._serial + repr(key).encode()))
            self._size += len(body) + KEY_BYTES
            if self._size > KEPT_BYTES:
                self._clear()
            self._bodies[key] = found
        return TaggedBody(*found, fields)

    def _clear(self) -> None:
        self._bodies.clear()
        self._size = 0


def _aliases(shelf: _Shelf, uses: Uses, grant: Grant | None) -> bytes:
    rows: list[dict[str, object]] = []
    for alias in shelf.snapshot.aliases.values():
        entry = shelf.catalog.find(alias.name)
        if not _may(grant, alias.name, entry):
            continue
        rows.append(
            {
                "id": alias.name,
                "object": "headgate.alias",
                "use_case": alias.use_case,
                "models": [ref.model for ref in alias.targets],
                "configured": entry is not None and entry.model.headgate.configured,
                "origin": alias.origin,
                "why": alias.why,
                "uses_30d": uses.names.get(alias.name, 0),
            }
        )
    return _list(rows)


def _providers(snapshot: Snapshot) -> bytes:
    """``models`` is how many are declared, null where any id passes."""
    return _list(
        [
            {
                "name": provider.name,
                "object": "headgate.provider",
                "title": provider.title,
                "status": "ready" if ready(provider) else "no_key",
                "models": None if provider.models is None else len(provider.models),
                "training": provider.training,
                "origin": provider.origin,
            }
            for provider in snapshot.providers.values()
        ]
    )


def _list(rows: Sequence[Mapping[str, object]]) -> bytes:
    return encode({"object": "list", "data": rows, "has_more": False})


def _bounds(grant: Grant | None) -> tuple[tuple[str, ...], str]:
    """The models that a caller may see (empty: all), and its tenant."""
    return ((), "") if grant is None else (grant.models, grant.tenant)


def _may(grant: Grant | None, name: str, entry: Entry | None) -> bool:
    """Whether a caller may see it.  A tenant's aliases exist for its own tokens only."""
    if tenant_of(name) not in (None, _bounds(grant)[1]):
        return False
    if grant is None or not grant.models or name in grant.models:
        return True
    return entry is not None and selection.permitted(entry, grant.models)


def _fields(grant: Grant | None) -> bytes:
    return _PUBLIC if grant is None else _PRIVATE


def _etag(content: bytes) -> bytes:
    return b'"%b"' % hashlib.blake2b(content, digest_size=12).hexdigest().encode()


# ------------------------------------------------------------------------------------- the parts of a URL


def rest_of(path: bytes, collection: bytes) -> str | None:
    """Return the part of a path after ``collection``, decoded; None if it cannot be an id."""
    try:
        ident = unquote_to_bytes(path.partition(collection)[2]).decode()
    except UnicodeDecodeError:
        return None
    return ident if len(ident) <= MAX_ID and ident.isprintable() else None


def unchanged(request: Request, etag: bytes) -> bool:
    """The asker has this body already (RFC 9110 §13.1.2: If-None-Match compares weakly)."""
    known = request.headers.get(b"if-none-match")
    if known is None:
        return False
    return known.strip() == b"*" or etag in (one.strip().removeprefix(b"W/") for one in known.split(b","))
