"""The admin API without a running gateway: the same application, on the same store, called in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import httpx2

from headgate.control.api.access.needs import PREFIX
from headgate.control.api.app import build
from headgate.control.api.parts import Admin
from headgate.control.identity.master_key import VaultLocked
from headgate.control.ingest.recorder import Recorder
from headgate.control.snapshot.hub import Worker
from headgate.control.snapshot.setup import set_up
from headgate.control.store.database import StoreUnusable, open_store
from headgate.control.telemetry.alerting import Alerting
from headgate.process import statedir
from headgate.process.boot import MasterKey
from headgate.process.channel import AskReply, Down, Patch
from headgate.resources.compiled import Compiled

URL = "http://headgate" + PREFIX
CALL_S = 30.0


class Nobody:
    """An audience of none: what is stored holds from the next start, so it is effective."""

    workers: Sequence[Worker] = ()

    def tell(self, message: Down) -> None:
        """There is nobody to tell."""

    def send_patch(self, patch: Patch | None) -> None:
        """There is nobody to tell."""

    def release(self) -> None:
        """There is nobody who waits."""

    async def effective(self, generation: int) -> bool:
        return True

    async def ask(self, kind: str, grant: str, params: Mapping[str, str]) -> AskReply | None:
        """There is nobody who knows."""
        return None

    async def ask_each(self, kind: str, params: Mapping[str, str]) -> list[AskReply]:
        return []


@contextlib.asynccontextmanager
async def offline(
    state_dir: Path,
    database: str,
    load: Callable[[], Compiled],
    master_key: MasterKey = MasterKey(),  # noqa: B008  (it is frozen)
    public_url: str = "",
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of ``/admin/v1`` while nothing runs; its base URL is the API's root, the admin token is on it.

    ``load`` compiles the configuration file (``settings.compile``; what the built-in provider's URL is does not
    matter).  What the journal still holds is recorded first, so that lists are complete.  Changes hold from the next
    start: their answers say ``effective: true``.  ``POST /drain`` answers 409.

    Raises statedir.StateError where a gateway holds the state directory (use its control API then) or where nothing
    can be written, StoreUnusable (also where the instance's or the vault's key is lost), and what ``load`` raises.
    """
    lock = statedir.prepare(state_dir, command=True)
    try:
        async with _on_the_store(state_dir, database, load, master_key, public_url) as client:
            yield client
    finally:
        os.close(lock)


@contextlib.asynccontextmanager
async def _on_the_store(
    state_dir: Path, database: str, load: Callable[[], Compiled], master_key: MasterKey, public_url: str
) -> AsyncIterator[httpx2.AsyncClient]:
    engine = await open_store(database)
    recorder = Recorder(engine, state_dir / "journal")
    try:
        try:
            publishing = await set_up(state_dir, engine, load, master_key=master_key, public_url=public_url)
        except (VaultLocked, statedir.StateError) as error:
            raise StoreUnusable(str(error)) from error
        publishing.publication.link = Nobody()
        await publishing.publication.begin(await asyncio.to_thread(load))
        await publishing.upkeep.settle()
        (state_dir / "journal").mkdir(mode=0o700, exist_ok=True)
        await recorder.start()
        await recorder.catch_up()
        token = secrets.token_urlsafe(32)  # of this one client
        webhooks = Alerting(engine, publishing, Nobody()).webhooks
        app = build(Admin(engine, publishing, Nobody(), recorder, webhooks, "", None), token)
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app, raise_app_exceptions=False),
            base_url=URL,
            headers={"authorization": f"Bearer {token}"},
            timeout=CALL_S,
        ) as client:
            yield client
    finally:
        await recorder.stop()
        await engine.dispose()
