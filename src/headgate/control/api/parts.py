"""What the admin API works on: the parts of the control process, and what it may ask of the whole gateway."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.ingest.recorder import Recorder
from headgate.control.snapshot.hub import Worker
from headgate.control.snapshot.publication import Publication
from headgate.control.snapshot.setup import Publishing
from headgate.control.telemetry.webhooks import Webhooks
from headgate.process.boot import AccessSettings
from headgate.process.channel import AskReply, Down


class Workers(Protocol):
    """Who is connected, and can be asked."""

    @property
    def workers(self) -> Sequence[Worker]: ...

    async def ask(self, kind: str, grant: str, params: Mapping[str, str]) -> AskReply | None: ...

    async def ask_each(self, kind: str, params: Mapping[str, str]) -> list[AskReply]: ...

    def tell(self, message: Down) -> None: ...


@dataclass(frozen=True, slots=True)
class Admin:
    """One per application.  ``drain`` asks the supervisor to end the gateway; None where nothing runs."""

    engine: AsyncEngine
    publishing: Publishing
    link: Workers
    recorder: Recorder
    webhooks: Webhooks
    data_url: str
    drain: Callable[[], None] | None
    access: AccessSettings = field(default_factory=AccessSettings)
    started_at: float = field(default_factory=time.time)

    @property
    def publication(self) -> Publication:
        return self.publishing.publication
