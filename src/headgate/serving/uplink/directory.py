"""The configuration that new calls see: the current Snapshot, the plans made from it, the providers' keys, and health.

Replaced whole, never changed: a call that has begun keeps the Router (and with it the Snapshot) it began with.
Health and the counters are the exceptions: they describe what happens outside and what was used, and outlive every
Snapshot.  Health is notified here when keys change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headgate.model import Snapshot
from headgate.policy.admission.memory import MemoryCounters
from headgate.policy.auth import Digester
from headgate.policy.health.targets import HealthState
from headgate.policy.routing.router import Router
from headgate.ports import Counters
from headgate.process.channel import Resume, SpentBefore, Uses


class SnapshotDirectory:
    """See ports.Directory.  ``key`` is the instance key under which tokens are digested; ``uses`` is the catalog's
    count of the last 30 days.  It stands beside the Snapshot, because it changes every minute and no decision depends
    on it.
    """

    def __init__(self, key: bytes, snapshot: Snapshot, secrets: Mapping[str, str]) -> None:
        self.digester = Digester(key)
        self.router = Router(snapshot)
        self.secrets = secrets
        self.uses = Uses({}, {})
        self.health = HealthState()
        self.counters: Counters = MemoryCounters()
        self.changed: Callable[[], None] | None = None  # called when waiting calls may fare better now
        self._restored: set[str] = set()  # holders, until all are
        self._keyless: frozenset[str] = frozenset()
        self._park_keyless()

    @property
    def snapshot(self) -> Snapshot:
        return self.router.snapshot

    def replace(self, snapshot: Snapshot) -> None:
        """Use ``snapshot`` for new calls from now on."""
        before = self.snapshot.providers
        self.router = Router(snapshot, self.router)
        if snapshot.providers is not before:
            self._park_keyless()
        self._tell_changed()

    def rekey(self, secrets: Mapping[str, str]) -> None:
        """Use these keys for new attempts.  Failures of a former key do not count against the key in its place."""
        before, self.secrets = self.secrets, secrets
        for account, key in secrets.items():
            if before.get(account) != key:
                self.health.revive(account)
        self._park_keyless()
        self._tell_changed()

    def restore(self, part: SpentBefore, now: float) -> None:
        """Count what was used before this process began, each holder's once: after a lost connection parts come
        again.
        """
        if self.counters.restored:
            return
        fresh = [one for one in part.spent if one.key not in self._restored]
        named = (self.router.quotas.named(one.key) for one in fresh)
        self.counters.restore(fresh, [found[1] for found in named if found is not None], now)
        self._restored.update(one.key for one in fresh)
        if part.last:
            self.counters.restored = True
            self._restored.clear()

    def resume(self, wish: Resume, now: float) -> None:
        """Use resting accounts again at once, if their keys are known."""
        for account in wish.accounts:
            if account not in self._keyless:
                self.health.revive(account)
        if wish.targets:
            self.health.readmit(wish.provider)
        for model, trims in wish.trims.items():
            self.health.learn_trims((wish.provider, model), trims, now)
        self._tell_changed()

    def _tell_changed(self) -> None:
        if self.changed is not None:
            self.changed()

    def _park_keyless(self) -> None:
        """Stop the use of accounts without a key: it cannot be decrypted, or control has not sent it yet."""
        keyless = frozenset(
            account.id
            for provider in self.snapshot.providers.values()
            if provider.auth != "none"
            for account in provider.accounts
            if account.id not in self.secrets
        )
        for account in keyless - self._keyless:
            self.health.park(account)
        for account in self._keyless - keyless:
            self.health.revive(account)
        self._keyless = keyless
