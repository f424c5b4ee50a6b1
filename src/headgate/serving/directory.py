"""The world that new calls see: the current Snapshot, the plans made from it, and the providers' keys.

Replaced whole, never changed: a call that has begun keeps the Router (and with it the Snapshot) it began with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headgate.channel import World
from headgate.model import Grant, Snapshot
from headgate.policy.auth import Digester
from headgate.policy.router import Router


class Directory:
    """See ports.Directory.  ``key`` is the instance key under which tokens are digested."""

    def __init__(self, key: bytes, snapshot: Snapshot, secrets: Mapping[str, str]) -> None:
        self.digester = Digester(key)
        self.router = Router(snapshot)
        self.secrets = secrets

    @property
    def snapshot(self) -> Snapshot:
        return self.router.snapshot

    def replace(self, snapshot: Snapshot) -> None:
        """New calls see ``snapshot`` from now on."""
        self.router = Router(snapshot)


def compose(generation: int, world: World, tokens: Mapping[bytes, Grant]) -> Snapshot:
    """A Snapshot from what travels."""
    return Snapshot(
        generation, tokens, world.providers, world.aliases, world.default_model, world.timeouts, world.retries,
        world.unpriced,
    )  # fmt: skip


def patched(
    snapshot: Snapshot,
    generation: int,
    world: World | None,
    tokens: Iterable[tuple[bytes, Grant]],
    removed: Iterable[bytes],
) -> Snapshot:
    """A new Snapshot with the changed objects in place.  Copies the tokens' table: 0.1 ms for 20,000."""
    table = dict(snapshot.tokens)
    for digest in removed:
        table.pop(digest, None)
    table.update(tokens)
    if world is None:
        world = World(
            snapshot.providers, snapshot.aliases, snapshot.default_model, snapshot.timeouts, snapshot.retries,
            snapshot.unpriced,
        )  # fmt: skip
    return compose(generation, world, table)
