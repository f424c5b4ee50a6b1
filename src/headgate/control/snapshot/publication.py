"""What the data processes are told, and when: everything that is declared comes together here.

Owns the current Snapshot, its generation (which increases for ever), and the order of changes: one at a time, first
the store, then the channel.  Waiting for acks is outside of that order, so that one stuck worker delays nobody else's
change.  What takes time (composing, comparing) is done in a thread.

``begin`` composes what is known at once: file, environment, store.  ``settle`` adds what has to be looked for: the file
as it is now, engines on this machine, the price list.  No call waits for either.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from typing import Protocol, TypeVar

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.catalog import prices
from headgate.control.discovery.detection import Detected, engines, taken
from headgate.control.identity import tokens
from headgate.control.identity.tokens import Minted, Stored
from headgate.control.identity.vault import Damaged, Vault
from headgate.control.objects import headers, named, registry
from headgate.control.objects.assemble import Sources, all_providers, assemble
from headgate.control.objects.registry import Objects
from headgate.control.refusals import MANAGED_BY_FILE, TOKEN_NOT_FOUND
from headgate.control.reports.usage import uses_30d
from headgate.control.snapshot.compose import compose, difference, same, world_of
from headgate.control.store.database import read_meta, write_meta
from headgate.errors import CONTROL_AWAY, GatewayError
from headgate.model import Grant, Snapshot
from headgate.process.channel import Down, Patch, Secrets, Uses
from headgate.resources.compiled import Compiled
from headgate.resources.provider import ProviderBody

MINUTE_S = 60.0
PATIENCE_S = 5.0
NOTHING_FOUND = Detected({}, ())

log = structlog.get_logger("headgate.publication")
T = TypeVar("T")


class Audience(Protocol):
    """Who is told: the link's data processes, or nobody while nothing runs."""

    def tell(self, message: Down) -> None: ...

    def send_patch(self, patch: Patch | None) -> None: ...

    def release(self) -> None: ...

    async def effective(self, generation: int) -> bool: ...


@dataclass(frozen=True, slots=True)
class Reloaded:
    """``changed``: something differs.  ``effective``: every connected data process serves with it.
    ``needs_restart``: changed keys that only a restart applies.
    """

    generation: int
    changed: bool
    effective: bool
    needs_restart: tuple[str, ...] = ()


class Publication:
    """See ``link.Source``.  ``begin`` first; then ``link`` is set; then ``settle``.  ``reloaded`` is called after a
    reload that changed something.  ``own_ports``: of this gateway, where no engine is looked for.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        key: bytes,
        vault: Vault,
        stored: Objects,
        load: Callable[[], Compiled],
        reloaded: Callable[[], None],
        own_ports: frozenset[int] = frozenset(),
    ) -> None:
        self._engine = engine
        self._key = key
        self._vault = vault
        self._load = load
        self._reloaded = reloaded
        self._own_ports = own_ports
        self._order = asyncio.Lock()
        self._tokens: dict[bytes, Grant] = {}
        self._opened: dict[str, tuple[bytes, str]] = {}  # by account id: what was sealed, and what was in it
        self._day: date | None = None  # whose prices hold; None before the price list is there
        self._begun = stored
        self._behind = False  # a change was written and could not be told
        self.sources: Sources
        self.snapshot = Snapshot()
        self.secrets: Mapping[str, str] = {}
        self.damaged: frozenset[str] = frozenset()  # accounts whose sealed key does not open
        self.detected = NOTHING_FOUND
        self.uses = Uses({}, {})
        self.inherited = 0  # the last generation of the life before this one
        self.settled = False
        self.reload_error: str | None = None
        self.reloaded_at = 0.0  # Unix seconds
        self.link: Audience

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One change at a time.  Raises GatewayError (503) where the ones before it take too long: a store that is
        blocked must not pile up those who wait.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._order.acquire()
        except TimeoutError:
            raise GatewayError(CONTROL_AWAY, "The store is busy with other changes; try again.") from None
        try:
            yield
        finally:
            self._order.release()

    # --------------------------------------------------------------------------------- starting

    async def begin(self, compiled: Compiled) -> None:
        """Composes the first Snapshot of this life of control.  Raises SQLAlchemyError."""
        stored = await asyncio.to_thread(headers.all_sealed, self._begun, compiled.rows, self._vault.seal)
        if stored != self._begun:
            await registry.save(self._engine, self._begun, stored)
        self.sources = Sources(compiled, stored, environ=os.environ)
        self._tokens = dict(await tokens.grants(self._engine))
        self.reloaded_at = time.time()
        self.secrets = self._all_secrets()
        async with self._engine.connect() as connection:
            self.inherited = int(await read_meta(connection, "generation") or 0)
        self.snapshot = await asyncio.to_thread(self._composed, await self._next_generation())

    async def settle(self) -> None:
        """The file as it is now, the engines of this machine, the price list.  What fails is logged and left out."""
        try:
            found, _ = await asyncio.gather(self._look(), asyncio.to_thread(self._know_prices))
            self.detected = found
            self._take_in(found)
            await self._publish_changes()
            await self.refresh_uses()
        except Exception as error:  # noqa: BLE001  (whatever it is: what is known already holds)
            log.error("the gateway goes on with what the file and the store declare", error=repr(error))
        finally:
            self.settled = True
            self.link.release()

    async def _look(self) -> Detected:
        compiled = self.sources.compiled
        return await self._engines() if compiled.detect_engines and compiled.rows else NOTHING_FOUND

    async def _engines(self) -> Detected:
        skip = self._own_ports | taken(all_providers(replace(self.sources, detected={})))
        return await engines(self.sources.compiled.rows, skip)

    def _know_prices(self) -> None:
        self._day = datetime.now(UTC).date()
        prices.enrich({}, {}, self._day)  # imports the list

    def _take_in(self, found: Detected) -> None:
        enrich = partial(prices.enrich, today=self._day) if self._day else None
        self.sources = replace(self.sources, detected=found.providers, enrich=enrich)

    async def each_minute(self) -> None:
        """What changes by itself: 30 days' uses, and prices with the day (UTC).  Ends by being cancelled."""
        while True:
            await asyncio.sleep(MINUTE_S)
            try:
                await self.refresh_uses()
                new_day = self._day is not None and datetime.now(UTC).date() != self._day
                if new_day:
                    self._day = datetime.now(UTC).date()
                    self._take_in(self.detected)
                if new_day or self._behind:
                    await self._publish_changes()
            except Exception as error:  # noqa: BLE001  (the store is away: a minute later it may be back)
                log.error("uses and prices were not refreshed; trying again in a minute", error=repr(error))

    async def refresh_uses(self) -> None:
        """Counts the uses of 30 days and tells everybody.  Raises SQLAlchemyError."""
        self.uses = Uses(*await uses_30d(self._engine))
        self.link.tell(self.uses)

    # --------------------------------------------------------------------------------- stored objects

    async def change(self, alter: Callable[[Sources], tuple[Objects, T]]) -> tuple[T, bool]:
        """Judges, writes and publishes one change of stored objects: what ``alter`` returns beside them, and whether
        it is effective.  Raises what ``alter`` raises (GatewayError), SQLAlchemyError, OSError.
        """
        async with self._turn():
            before = self.sources.objects
            after, made = await asyncio.to_thread(alter, self.sources)
            await registry.save(self._engine, before, after)
            self.sources = replace(self.sources, objects=after)
            generation = await self._publish()
        return made, await self.link.effective(generation)

    def seal(self, account: str, key: str) -> bytes:
        """See ``Vault.seal``."""
        return self._vault.seal(account, key)

    def seal_headers(self, name: str, body: ProviderBody) -> ProviderBody:
        """See ``headers.sealed``."""
        return headers.sealed(name, body, self.sources.compiled.rows, self._vault.seal)

    def _all_secrets(self) -> dict[str, str]:
        """Providers' keys by account id; the file's wins.  What does not open is logged once and left out."""
        opened: dict[str, tuple[bytes, str]] = {}
        damaged = set()
        stored = self.sources.objects
        accounts = {ident: account.sealed for ident, account in stored.accounts.items()}
        for ident, sealed in {**accounts, **headers.sealed_secrets(stored)}.items():
            kept = self._opened.get(ident)
            try:
                key = kept[1] if kept and kept[0] == sealed else self._vault.open(ident, sealed)
            except Damaged:
                damaged.add(ident)
                if ident not in self.damaged:
                    log.error("a stored key does not open: it was changed, or belongs elsewhere", account=ident)
                continue
            opened[ident] = sealed, key
        self._opened = opened
        self.damaged = frozenset(damaged)
        return {**{ident: key for ident, (_, key) in opened.items()}, **self.sources.compiled.secrets}

    # --------------------------------------------------------------------------------- tokens

    async def create(self, wish: Grant) -> tuple[Minted, bool]:
        """A new token, and whether it is effective.  Raises GatewayError (its name is taken), SQLAlchemyError."""
        async with self._turn():
            named.free_name(wish.name, self.all_tokens())
            minted = await tokens.create(self._engine, self._key, wish)
            self._tokens[minted.digest] = minted.grant
            generation = await self._publish_tokens()
        return minted, await self.link.effective(generation)

    async def revoke(self, wanted: str) -> tuple[str, bool]:
        """The id of the token with this id or name, and whether every connected data process refuses it now.  Raises
        GatewayError, SQLAlchemyError.
        """
        async with self._turn():
            ident = named.token_id(wanted, self.all_tokens())
            # A token of the store first: a file-declared one may bear the same id and must not shield it
            if not await tokens.revoke(self._engine, ident):
                self._refuse_token(ident)
            self._tokens = {digest: grant for digest, grant in self._tokens.items() if grant.id != ident}
            generation = await self._publish_tokens()
        return ident, await self.link.effective(generation)

    async def edit_token(self, wanted: str, edit: Callable[[Grant], Grant]) -> tuple[Stored, bool]:
        """A token with another name, scopes, models or expiry.  Raises GatewayError, SQLAlchemyError."""
        async with self._turn():
            ident = named.token_id(wanted, self.all_tokens())
            entry = await self._good(ident)
            grant = edit(entry.grant)
            if grant.name != entry.grant.name:
                named.free_name(grant.name, self.all_tokens(), ident)
            await tokens.edit(self._engine, grant)
            await self._renew(ident)
            generation = await self._publish_tokens()
        return replace(entry, grant=grant), await self.link.effective(generation)

    async def rotate(self, wanted: str, overlap_s: float) -> tuple[Minted, float | None, bool]:
        """A new secret for a token, until when the former one is good beside it (Unix seconds), and whether that is
        effective.  Raises GatewayError, SQLAlchemyError.
        """
        async with self._turn():
            ident = named.token_id(wanted, self.all_tokens())
            minted, until = await tokens.rotate(self._engine, self._key, await self._good(ident), overlap_s)
            await self._renew(ident)
            generation = await self._publish_tokens()
        return minted, until, await self.link.effective(generation)

    async def _renew(self, ident: str) -> None:
        others = {digest: grant for digest, grant in self._tokens.items() if grant.id != ident}
        self._tokens = {**others, **await tokens.grants(self._engine, ident)}

    async def _good(self, ident: str) -> Stored:
        entry = await tokens.one(self._engine, ident)
        if entry is None or entry.revoked_at is not None:
            self._refuse_token(ident)
        assert entry is not None
        return entry

    def _refuse_token(self, ident: str) -> None:
        if any(grant.id == ident for grant in self.file_tokens()):
            raise GatewayError(
                MANAGED_BY_FILE,
                f"The token {ident!r} is declared in the configuration file: change it there and reload.",
            )
        raise GatewayError(TOKEN_NOT_FOUND, f"There is no token {ident!r} that is in use.")

    def file_tokens(self) -> list[Grant]:
        return list(self.sources.compiled.tokens.values())

    def all_tokens(self) -> list[Grant]:
        """Every token that is good, those of the store first.  One that was rotated may stand there twice."""
        return [*self._tokens.values(), *self.file_tokens()]

    # --------------------------------------------------------------------------------- file and engines

    @property
    def needs_restart(self) -> tuple[str, ...]:
        """Keys that the file gives another value than the running processes were started with."""
        return self.sources.compiled.needs_restart

    async def reload(self) -> Reloaded:
        """Reads the file again.  Raises ValueError or OSError with a sentence where it is bad: the last good one
        stays.  What the store declares stays too.
        """
        async with self._turn():
            try:
                compiled = await asyncio.to_thread(self._load)
            except (ValueError, OSError) as error:
                if self.reload_error != str(error):
                    log.error("the configuration was not reloaded; the last good one stays", error=str(error))
                self.reload_error = str(error)
                raise
            self.reload_error = None
            self.reloaded_at = time.time()
            if compiled.needs_restart and compiled.needs_restart != self.needs_restart:
                log.warning("these changed keys need a restart", keys=", ".join(compiled.needs_restart))
            before, secrets = self.snapshot.generation, self.secrets
            self.sources = replace(self.sources, compiled=compiled)
            generation = await self._publish(unless_same=True)
            changed = generation != before or secrets != self.secrets
        if changed:
            log.info("configuration reloaded", generation=generation)
            self._reloaded()
        effective = await self.link.effective(generation)
        return Reloaded(generation, changed, effective, compiled.needs_restart)

    async def detect(self) -> tuple[Detected, bool]:
        """Looks for local engines again: what is there, and whether the data processes know.  Where the configuration
        turns detection off it is only said, not used.
        """
        found = await self._engines()
        async with self._turn():
            if self.sources.compiled.detect_engines:
                self.detected = found
                self._take_in(found)
            generation = await self._publish(unless_same=True)
        return found, await self.link.effective(generation)

    # --------------------------------------------------------------------------------- telling

    def _composed(self, generation: int) -> Snapshot:
        sources = self.sources
        return compose(generation, replace(sources.compiled, world=assemble(sources)), self._tokens)

    async def _publish_changes(self) -> int:
        async with self._turn():
            return await self._publish(unless_same=True)

    async def _publish(self, unless_same: bool = False) -> int:
        """Composes everything anew and tells what differs.  Returns the generation that now holds."""
        self._behind = True
        old, former = self.snapshot, self.secrets
        self.secrets = self._all_secrets()
        if former != self.secrets:  # before the Snapshot that names their accounts
            self.link.tell(Secrets({**former, **self.secrets}))
        draft, patch, unchanged = await asyncio.to_thread(self._compared, old)
        generation = old.generation if unchanged and unless_same else await self._tell(draft, patch)
        if former.keys() - self.secrets.keys():  # and behind the one that names them no more
            self.link.tell(Secrets(self.secrets))
        self._behind = False
        return generation

    def _compared(self, old: Snapshot) -> tuple[Snapshot, Patch | None, bool]:
        draft = self._composed(0)
        return draft, difference(old, draft), same(old, draft)

    async def _publish_tokens(self) -> int:
        """As ``_publish`` where nothing but tokens changed."""
        behind, self._behind = self._behind, True
        world = replace(self.sources.compiled, world=world_of(self.snapshot))
        draft = compose(0, world, self._tokens)
        generation = await self._tell(draft, await asyncio.to_thread(difference, self.snapshot, draft))
        self._behind = behind
        return generation

    async def _tell(self, draft: Snapshot, patch: Patch | None) -> int:
        generation = await self._next_generation()
        self.snapshot = msgspec.structs.replace(draft, generation=generation)
        self.link.send_patch(patch and msgspec.structs.replace(patch, generation=generation))
        return generation

    async def _next_generation(self) -> int:
        """Persisted before anybody is told.  Starts at the time in ms, so that a store that was thrown away and made
        anew still gives higher numbers than a data process may hold on disk.
        """
        async with self._engine.begin() as connection:
            last = int(await read_meta(connection, "generation") or 0)
            generation = max(last + 1, int(time.time() * 1000))
            await write_meta(self._engine, connection, "generation", str(generation))
        return generation
