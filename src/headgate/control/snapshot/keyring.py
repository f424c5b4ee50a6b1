"""Providers' keys in the clear: what the store holds sealed, opened once, and what the configuration file declares."""

from __future__ import annotations

import structlog

from headgate.control.identity.vault import Damaged, Vault
from headgate.control.objects import headers
from headgate.control.objects.assemble import Sources
from headgate.resources.compiled import Compiled
from headgate.resources.provider import ProviderBody

log = structlog.get_logger("headgate.publication")


class Keyring:
    """``damaged``: accounts whose sealed key does not open."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._opened: dict[str, tuple[bytes, str]] = {}  # by account id: what was sealed, and what was in it
        self.damaged: frozenset[str] = frozenset()

    def seal(self, account: str, key: str) -> bytes:
        """See ``Vault.seal``."""
        return self._vault.seal(account, key)

    def seal_headers(self, name: str, body: ProviderBody, compiled: Compiled) -> ProviderBody:
        """See ``headers.sealed``."""
        return headers.sealed(name, body, compiled.rows, self._vault.seal)

    def secrets(self, sources: Sources) -> dict[str, str]:
        """Providers' keys by account id; the file's wins.  What does not open is logged once and left out."""
        opened: dict[str, tuple[bytes, str]] = {}
        damaged = set()
        stored = sources.objects
        accounts = {ident: account.sealed for ident, account in stored.accounts.items()}
        for ident, sealed in {**accounts, **headers.sealed_secrets(stored)}.items():
            kept = self._opened.get(ident)
            try:
                key = kept[1] if kept and kept[0] == sealed else self._vault.open(ident, sealed)
            except Damaged:
                damaged.add(ident)
                if ident not in self.damaged:
                    log.error("a stored key does not open: it was changed, or belongs elsewhere", account=ident)
                continue
            opened[ident] = sealed, key
        self._opened = opened
        self.damaged = frozenset(damaged)
        return {**{ident: key for ident, (_, key) in opened.items()}, **sources.compiled.secrets}
