"""/admin/v1: the gateway as a whole: health, reload, detection, drain, cache; and the probes beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate import __version__
from headgate.catalog import prices
from headgate.control.api.errors import documented
from headgate.control.api.parts import Admin
from headgate.control.api.routers import name_of, router
from headgate.control.api.views import Changed, View, view_of
from headgate.control.audit.chain import Change, record_alone
from headgate.control.ingest.recorder import Lag
from headgate.control.objects.discovery.detection import Asked
from headgate.control.refusals import INVALID_CONFIG, NOTHING_RUNS
from headgate.control.snapshot.publication import Publication
from headgate.control.snapshot.upkeep import Upkeep
from headgate.control.store.database import refusals
from headgate.errors import GatewayError
from headgate.process import locate

REFUSALS_WINDOW_S = 3600


class WorkerView(View):
    """A data process.  ``generation``: the last that it serves with, -1 before."""

    worker: str
    pid: int
    boot_id: str
    generation: int
    gauges: dict[str, float]
    gauges_at: float | None


class RecorderView(view_of(Lag)):  # type: ignore[misc]
    """What the journal holds and the store does not yet."""


class ConfigView(View):
    """``file``: what the gateway reads and watches; null where it has none.

    ``appeared``: where it has none, a file that has been made since in a place that it looks at.
    """

    file: str | None
    appeared: str | None
    reloaded_at: float
    reload_error: str | None
    needs_restart: list[str]


class RefusalsView(View):
    """Requests that were turned away before a token was known, by code."""

    window_s: int
    codes: dict[str, int]


class PricesView(View):
    """``snapshot``: the price list's id, null before it is read."""

    snapshot: str | None


class AskedView(view_of(Asked)):  # type: ignore[misc]
    """An engine that was looked for on this machine.  ``said``: what was there."""


class DetectionView(View):
    """``enabled``: `detect.local_engines` of the configuration."""

    enabled: bool
    found: list[str]
    asked: list[AskedView]


class Health(View):
    """What is known of the processes, the journal, the configuration and what was found."""

    object: Literal["headgate.health"] = "headgate.health"
    version: str
    uptime_s: float
    data_url: str
    generation: int
    workers: list[WorkerView]
    recorder: RecorderView
    config: ConfigView
    refusals: RefusalsView
    prices: PricesView
    detection: DetectionView


class ReloadResult(Changed):
    """``needs_restart``: keys that the file changes and that only a restart applies."""

    object: Literal["headgate.reload"] = "headgate.reload"
    generation: int
    changed: bool
    needs_restart: list[str]


class DetectResult(DetectionView, Changed):
    object: Literal["headgate.detection"] = "headgate.detection"


class CacheView(View):
    """The response caches of all data processes, added up.  Counts begin with a data process."""

    object: Literal["headgate.cache"] = "headgate.cache"
    processes: int
    entries: int
    bytes: int
    max_bytes: int
    hits: int
    misses: int
    stored: int
    evicted: int


class ClearedCache(View):
    """``cleared``: answers that were dropped, in so many data processes."""

    object: Literal["headgate.cache.cleared"] = "headgate.cache.cleared"
    cleared: int
    processes: int


class Draining(View):
    object: Literal["headgate.drain"] = "headgate.drain"
    draining: Literal[True] = True


class ProbeStatus(View):
    status: str


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("gateway")
    _add_health(api, admin)
    _add_orders(api, admin)
    _add_cache(api, admin)
    return api


def _add_health(api: APIRouter, admin: Admin) -> None:
    publication, upkeep = admin.publication, admin.publishing.upkeep

    @api.get("/health")
    async def health() -> Health:
        """What is known of the processes, the journal and the configuration."""
        return Health(
            version=__version__,
            uptime_s=round(time.time() - admin.started_at, 1),
            data_url=admin.data_url,
            generation=publication.snapshot.generation,
            workers=_workers(admin),
            recorder=RecorderView.of(admin.recorder.lag()),
            config=_config(publication, upkeep),
            refusals=RefusalsView(window_s=REFUSALS_WINDOW_S, codes=await _refusals(admin.engine)),
            prices=PricesView(snapshot=prices.price_list() or None),
            detection=DetectionView(
                enabled=publication.sources.compiled.detect_engines,
                found=list(upkeep.detected.providers),
                asked=_asked(upkeep.detected.asked),
            ),
        )


def _add_orders(api: APIRouter, admin: Admin) -> None:
    publication, upkeep = admin.publication, admin.publishing.upkeep
    noted = partial(_noted, admin)

    @api.post("/reload")
    async def reload() -> ReloadResult:
        """Reads the configuration file again.  Where it is bad, the last good one stays; what the store declares stays
        too.
        """
        await noted("reload")
        try:
            done = await upkeep.reload()
        except (ValueError, OSError) as error:
            raise GatewayError(INVALID_CONFIG, str(error)) from error
        return ReloadResult(
            generation=done.generation,
            changed=done.changed,
            effective=done.effective,
            pending=not done.effective,
            needs_restart=list(done.needs_restart),
        )

    @api.post("/detect")
    async def detect() -> DetectResult:
        """Looks for engines on this machine again.  Where the configuration turns that off, none is used."""
        await noted("detect")
        found, effective = await upkeep.detect()
        return DetectResult(
            enabled=publication.sources.compiled.detect_engines,
            found=list(found.providers),
            asked=_asked(found.asked),
            effective=effective,
            pending=not effective,
        )

    @api.post("/drain", status_code=202, responses=documented(409))
    async def drain() -> Draining:
        """Ends the gateway as SIGTERM does: no new calls, the running ones finish, exit code 0."""
        if admin.drain is None:
            raise GatewayError(NOTHING_RUNS, "No gateway runs, so there is nothing to drain.")
        await noted("drain")
        admin.drain()
        return Draining()


def _add_cache(api: APIRouter, admin: Admin) -> None:
    @api.get("/cache", responses=documented(409))
    async def get_cache() -> CacheView:
        """What the response cache holds, and how often it had an answer."""
        gauges = await _each(admin, "cache", {})

        def total(name: str) -> int:
            return sum(int(one[f"cache_{name}"]) for one in gauges)

        return CacheView(
            processes=len(gauges), entries=total("entries"), bytes=total("bytes"), max_bytes=total("max_bytes"),
            hits=total("hits"), misses=total("misses"), stored=total("stored"), evicted=total("evicted"),
        )  # fmt: skip

    @api.delete("/cache", responses=documented(409))
    async def clear_cache(
        alias: Annotated[str, Query(max_length=256, description="Only answers to calls of this alias or model.")] = "",
    ) -> ClearedCache:
        """Drops stored answers.  The next calls go to their providers."""
        answers = await _each(admin, "cache_clear", {"requested": alias})
        cleared = sum(int(one["cleared"]) for one in answers)
        await record_alone(admin.engine, Change("cache", alias, "cleared", None, {"answers": cleared}))
        return ClearedCache(cleared=cleared, processes=len(answers))


async def _each(admin: Admin, kind: str, params: Mapping[str, str]) -> list[dict[str, float]]:
    """The answers of the data processes.  Raises GatewayError (409) where none answers."""
    replies = [reply for reply in await admin.link.ask_each(kind, params) if reply.status == 200]
    if not replies:
        raise GatewayError(NOTHING_RUNS, "No data process answers, so there is no cache; start the gateway.")
    return [msgspec.json.decode(reply.body, type=dict[str, float]) for reply in replies]


async def _noted(admin: Admin, action: str) -> None:
    await record_alone(admin.engine, Change("gateway", "", action))


def probes(admin: Admin) -> APIRouter:
    """For whoever watches over the process: no token."""
    api = APIRouter(tags=["probes"], generate_unique_id_function=name_of)

    @api.get("/livez")
    async def livez() -> ProbeStatus:
        """200 while the process answers."""
        return ProbeStatus(status="ok")

    @api.get(
        "/readyz", response_model=ProbeStatus, responses={503: {"model": ProbeStatus, "description": "Not ready."}}
    )
    async def readyz() -> JSONResponse:
        """503 while no data process is connected or the store does not take the journal."""
        ready = bool(admin.link.workers) and admin.recorder.lag().error is None
        return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    return api


def _appeared(file: str | None) -> str | None:
    found = None if file else locate.appeared(os.environ)
    return str(found) if found else None


def _config(publication: Publication, upkeep: Upkeep) -> ConfigView:
    file = publication.sources.compiled.path
    return ConfigView.of(upkeep, file=file, appeared=_appeared(file), needs_restart=list(upkeep.needs_restart))


def _workers(admin: Admin) -> list[WorkerView]:
    return [
        WorkerView.of(worker, worker=worker.name, gauges_at=worker.gauges_at / 1e9 if worker.gauges_at else None)
        for worker in admin.link.workers
    ]


def _asked(asked: tuple[Asked, ...]) -> list[AskedView]:
    return [AskedView.of(one) for one in asked]


async def _refusals(engine: AsyncEngine) -> dict[str, int]:
    since = int(time.time()) - REFUSALS_WINDOW_S
    query = select(refusals.c.code, func.sum(refusals.c.count)).where(refusals.c.second >= since)
    async with engine.connect() as connection:
        rows = await connection.execute(query.group_by(refusals.c.code).order_by(refusals.c.code))
        return {code: int(count) for code, count in rows}
