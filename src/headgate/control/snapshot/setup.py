"""The parts of publishing, put together on one store: for the control process, and for commands without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.identity.tokens import adopt_first
from headgate.control.identity.vault import open_vault
from headgate.control.objects import registry
from headgate.control.objects.headers import all_sealed_blobs
from headgate.control.reports.account_spend import AccountSpend
from headgate.control.snapshot.agent_tokens import AgentTokens
from headgate.control.snapshot.contributors import Contributors
from headgate.control.snapshot.keyring import Keyring
from headgate.control.snapshot.publication import Publication
from headgate.control.snapshot.spend_limits import SpendLimits
from headgate.control.snapshot.upkeep import Upkeep
from headgate.control.snapshot.vault_keys import VaultKeys
from headgate.process.boot import MasterKey
from headgate.process.credentials import instance_key
from headgate.resources.compiled import Compiled


@dataclass(frozen=True, slots=True)
class Publishing:
    publication: Publication
    tokens: AgentTokens
    upkeep: Upkeep
    vault: VaultKeys
    contributors: Contributors
    spend: SpendLimits


async def set_up(
    state: Path,
    engine: AsyncEngine,
    load: Callable[[], Compiled],
    reloaded: Callable[[], None] = lambda: None,
    own_ports: frozenset[int] = frozenset(),
    first_token: str | None = None,
    master_key: MasterKey = MasterKey(),  # noqa: B008  (it is frozen)
    public_url: str = "",
) -> Publishing:
    """Raises SQLAlchemyError, and VaultLocked or StateError where a key's file is gone or damaged."""
    key = instance_key(state)
    if first_token is not None:
        await adopt_first(engine, key, first_token)
    stored = await registry.load(engine)
    vault = await open_vault(engine, state, master_key, all_sealed_blobs(stored))
    publication = Publication(engine, Keyring(vault), stored)
    spend = SpendLimits(publication, AccountSpend(engine))
    upkeep = Upkeep(publication, engine, load, reloaded, own_ports, spend.apply, key)
    keys = VaultKeys(publication, engine, state)
    contributors = Contributors(publication, engine, key, public_url)
    return Publishing(publication, AgentTokens(publication, engine, key), upkeep, keys, contributors, spend)
