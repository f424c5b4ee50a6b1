"""The parts of publishing, put together on one store: for the control process, and for commands without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.identity.tokens import adopt_first
from headgate.control.identity.vault import Vault
from headgate.control.objects import registry
from headgate.control.objects.headers import all_sealed_blobs
from headgate.control.snapshot.agent_tokens import AgentTokens
from headgate.control.snapshot.keyring import Keyring
from headgate.control.snapshot.publication import Publication
from headgate.control.snapshot.upkeep import Upkeep
from headgate.process.credentials import instance_key
from headgate.resources.compiled import Compiled


@dataclass(frozen=True, slots=True)
class Publishing:
    publication: Publication
    tokens: AgentTokens
    upkeep: Upkeep


async def set_up(
    state: Path,
    engine: AsyncEngine,
    load: Callable[[], Compiled],
    reloaded: Callable[[], None] = lambda: None,
    own_ports: frozenset[int] = frozenset(),
    first_token: str | None = None,
) -> Publishing:
    """Raises SQLAlchemyError, and VaultLocked or StateError where a key's file is gone or damaged."""
    key = instance_key(state)
    if first_token is not None:
        await adopt_first(engine, key, first_token)
    stored = await registry.load(engine)
    publication = Publication(engine, Keyring(Vault(state, all_sealed_blobs(stored))), stored)
    upkeep = Upkeep(publication, engine, load, reloaded, own_ports, key)
    return Publishing(publication, AgentTokens(publication, engine, key), upkeep)
