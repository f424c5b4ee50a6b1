"""The world that new calls see: the current Snapshot, the plans made from it, and the providers' keys.

Replaced whole, never changed: a call that has begun keeps the Router (and with it the Snapshot) it began with.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.channel import Uses
from headgate.model import Snapshot
from headgate.policy.auth import Digester
from headgate.policy.router import Router


class Directory:
    """See ports.Directory.  ``key`` is the instance key under which tokens are digested; ``uses`` is what the catalog
    says about the last 30 days: beside the Snapshot, as it changes every minute and decides nothing.
    """

    def __init__(self, key: bytes, snapshot: Snapshot, secrets: Mapping[str, str]) -> None:
        self.digester = Digester(key)
        self.router = Router(snapshot)
        self.secrets = secrets
        self.uses = Uses({}, {})

    @property
    def snapshot(self) -> Snapshot:
        return self.router.snapshot

    def replace(self, snapshot: Snapshot) -> None:
        """New calls see ``snapshot`` from now on."""
        self.router = Router(snapshot, self.router)
