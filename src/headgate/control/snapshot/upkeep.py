"""What changes without the admin API: the file, engines on this machine, prices with the day, the uses of 30 days."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.catalog import prices
from headgate.control.audit.file_changes import record_changes
from headgate.control.objects.assemble import all_providers
from headgate.control.objects.discovery.detection import Detected, engines, taken
from headgate.control.reports.usage import uses_30d
from headgate.control.snapshot.publication import Publication
from headgate.process.channel import Uses
from headgate.resources.compiled import Compiled

MINUTE_S = 60.0
NOTHING_FOUND = Detected({}, ())

log = structlog.get_logger("headgate.publication")


@dataclass(frozen=True, slots=True)
class FileReload:
    """``changed``: something differs.  ``effective``: every connected data process serves with it.
    ``needs_restart``: changed keys that only a restart applies.
    """

    generation: int
    changed: bool
    effective: bool
    needs_restart: tuple[str, ...] = ()


class Upkeep:
    """``settle`` after the publication has begun.  ``load`` reads the file, ``reloaded`` is called after a reload that
    changed something; ``own_ports``: of this gateway, where no engine is looked for; ``apply_limits`` compares what
    accounts have spent with their limits.  ``key``: of the digests by which the audit log notices new secrets.
    """

    def __init__(
        self,
        publication: Publication,
        engine: AsyncEngine,
        load: Callable[[], Compiled],
        reloaded: Callable[[], None],
        own_ports: frozenset[int],
        apply_limits: Callable[[], Awaitable[None]],
        key: bytes,
    ) -> None:
        self._publication = publication
        self._engine = engine
        self._load = load
        self._reloaded = reloaded
        self._own_ports = own_ports
        self._key = key
        self._apply_limits = apply_limits
        self._day: date | None = None  # whose prices hold; None before the price list is there
        self.detected = NOTHING_FOUND
        self.reload_error: str | None = None
        self.reloaded_at = time.time()  # Unix seconds

    async def settle(self) -> None:
        """The file as it is now, the engines of this machine, the price list.  What fails is logged and left out."""
        try:
            found, _ = await asyncio.gather(self._look(), asyncio.to_thread(self._know_prices))
            self.detected = found
            self._take_in(found)
            await self._publication.publish_changes()
            await self.refresh_uses()
            await self._apply_limits()
        except Exception as error:  # noqa: BLE001  (whatever it is: what is known already holds)
            log.error("the gateway goes on with what the file and the store declare", error=repr(error))
        finally:
            self._publication.settle()

    async def _look(self) -> Detected:
        compiled = self._publication.sources.compiled
        return await self._engines() if compiled.detect_engines and compiled.rows else NOTHING_FOUND

    async def _engines(self) -> Detected:
        skip = self._own_ports | taken(all_providers(replace(self._publication.sources, detected={})))
        return await engines(self._publication.sources.compiled.rows, skip)

    def _know_prices(self) -> None:
        self._day = datetime.now(UTC).date()
        prices.enrich({}, {}, self._day)  # imports the list

    def _take_in(self, found: Detected) -> None:
        enrich = partial(prices.enrich, today=self._day) if self._day else None
        self._publication.sources = replace(self._publication.sources, detected=found.providers, enrich=enrich)

    async def each_minute(self) -> None:
        """What changes by itself: 30 days' uses, and prices with the day (UTC).  Ends by being cancelled."""
        while True:
            await asyncio.sleep(MINUTE_S)
            try:
                await self.refresh_uses()
                await self._apply_limits()
                new_day = self._day is not None and datetime.now(UTC).date() != self._day
                if new_day:
                    self._day = datetime.now(UTC).date()
                    self._take_in(self.detected)
                if new_day or self._publication.behind:
                    await self._publication.publish_changes()
            except Exception as error:  # noqa: BLE001  (the store is away: a minute later it may be back)
                log.error("uses and prices were not refreshed; trying again in a minute", error=repr(error))

    async def refresh_uses(self) -> None:
        """Counts the uses of 30 days and tells everybody.  Raises SQLAlchemyError."""
        self._publication.tell_uses(Uses(*await uses_30d(self._engine)))

    @property
    def needs_restart(self) -> tuple[str, ...]:
        """Keys that the file gives another value than the running processes were started with."""
        return self._publication.sources.compiled.needs_restart

    async def reload(self) -> FileReload:
        """Reads the file again.  Raises ValueError or OSError with a sentence where it is bad: the last good one
        stays.  What the store declares stays too.
        """
        async with self._publication.turn():
            try:
                compiled = await asyncio.to_thread(self._load)
            except (ValueError, OSError) as error:
                if self.reload_error != str(error):
                    log.error("the configuration was not reloaded; the last good one stays", error=str(error))
                self.reload_error = str(error)
                raise
            await record_changes(self._engine, compiled, self._key)
            self.reload_error = None
            self.reloaded_at = time.time()
            if compiled.needs_restart and compiled.needs_restart != self.needs_restart:
                log.warning("these changed keys need a restart", keys=", ".join(compiled.needs_restart))
            before, secrets = self._publication.snapshot.generation, self._publication.secrets
            alerting = self._publication.sources.compiled.alerting
            self._publication.sources = replace(self._publication.sources, compiled=compiled)
            generation = await self._publication.publish(unless_same=True)
            changed = generation != before or secrets != self._publication.secrets or alerting != compiled.alerting
        if changed:
            log.info("configuration reloaded", generation=generation)
            self._reloaded()
        effective = await self._publication.effective(generation)
        return FileReload(generation, changed, effective, compiled.needs_restart)

    async def detect(self) -> tuple[Detected, bool]:
        """Looks for local engines again: what is there, and whether the data processes know.  Where the configuration
        turns detection off it is only said, not used.
        """
        found = await self._engines()
        async with self._publication.turn():
            if self._publication.sources.compiled.detect_engines:
                self.detected = found
                self._take_in(found)
            generation = await self._publication.publish(unless_same=True)
        return found, await self._publication.effective(generation)
