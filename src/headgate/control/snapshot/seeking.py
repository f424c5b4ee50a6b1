"""Engines that start after the gateway: looked for while nothing else can serve."""

from __future__ import annotations

import asyncio

import structlog
from sqlalchemy.exc import SQLAlchemyError

from headgate.control.snapshot.publication import Publication
from headgate.control.snapshot.upkeep import Upkeep
from headgate.errors import GatewayError
from headgate.model import AUTO

SEEK_S = 3.0  # a look costs some refused connections on this machine

log = structlog.get_logger("headgate.control")


async def seek(publication: Publication, upkeep: Upkeep, pause_s: float = SEEK_S) -> None:
    """Looks again and again while `auto` leads nowhere.  Ends by being cancelled."""
    while True:
        await asyncio.sleep(pause_s)
        if publication.sources.compiled.detect_engines and not _leads(publication):
            try:
                await upkeep.detect()
            except (GatewayError, SQLAlchemyError) as error:  # the store is busy or away: a little later it may be back
                log.warning("engines that were found cannot be used yet", error=str(error))
                continue
            if target := _leads(publication):
                log.info(f"auto leads to {target}", why=publication.snapshot.aliases[AUTO].why)


def _leads(publication: Publication) -> str:
    auto = publication.snapshot.aliases.get(AUTO)
    return auto.targets[0].model if auto and auto.targets else ""
