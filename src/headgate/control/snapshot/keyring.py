"""Providers' keys in the clear: what the store holds sealed, opened once, and what the configuration file declares."""

from __future__ import annotations

from functools import partial

import structlog

from headgate.control.identity.vault import EARLIER, HEADER, Damaged, Vault
from headgate.control.objects import headers
from headgate.control.objects.assemble import Sources
from headgate.control.objects.registry import Objects
from headgate.resources.compiled import Compiled
from headgate.resources.provider import ProviderBody

log = structlog.get_logger("headgate.publication")


class Keyring:
    """``damaged``: accounts whose sealed key does not open."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self._opened: dict[str, tuple[bytes, str]] = {}  # by account id: what was sealed, and what was in it
        self.damaged: frozenset[str] = frozenset()

    def seal(self, account: str, key: str) -> bytes:
        """See ``Vault.seal``."""
        return self.vault.seal(account, key)

    def seal_headers(self, name: str, body: ProviderBody, compiled: Compiled) -> ProviderBody:
        """See ``headers.sealed``."""
        return headers.sealed(name, body, compiled.rows, partial(self.vault.seal, purpose=HEADER))

    def begun(self, stored: Objects, compiled: Compiled) -> Objects:
        """Stored objects as an earlier release left them, with nothing in the clear and nothing sealed its way."""
        whole = headers.all_sealed(stored, compiled.rows, partial(self.vault.seal, purpose=HEADER))
        earlier = [one for one in headers.everything(whole) if one[2][:1] == EARLIER]
        return headers.with_blobs(whole, self._anew(earlier)) if earlier else whole

    def resealed(self, stored: Objects, most: int) -> tuple[Objects, tuple[int, int]]:
        """At most ``most`` secrets sealed with the newest data key; how many those were, and how many are left.  A
        secret that does not open stays as it is and is not counted.
        """
        old = [one for one in headers.everything(stored) if not self.vault.is_current(one[2])]
        old = [one for one in old if self._open(*one) is not None]
        return headers.with_blobs(stored, self._anew(old[:most])), (len(old[:most]), len(old[most:]))

    def _anew(self, old: list[tuple[str, str, bytes]]) -> dict[tuple[str, str], bytes]:
        found = {}
        for purpose, row, blob in old:
            if (secret := self._open(purpose, row, blob)) is not None:
                found[purpose, row] = self.vault.seal(row, secret, purpose)
        return found

    def _open(self, purpose: str, row: str, blob: bytes) -> str | None:
        try:
            return self.vault.open(row, blob, purpose)
        except Damaged:
            return None

    def secrets(self, sources: Sources) -> dict[str, str]:
        """Providers' keys by account id; the file's wins.  What does not open is logged once and left out."""
        opened: dict[str, tuple[bytes, str]] = {}
        damaged = set()
        for purpose, ident, sealed in headers.everything(sources.objects):
            kept = self._opened.get(ident)
            try:
                key = kept[1] if kept and kept[0] == sealed else self.vault.open(ident, sealed, purpose)
            except Damaged:
                damaged.add(ident)
                if ident not in self.damaged:
                    log.error("a stored key does not open: it was changed, or belongs elsewhere", account=ident)
                continue
            opened[ident] = sealed, key
        self._opened = opened
        self.damaged = frozenset(damaged)
        return {**{ident: key for ident, (_, key) in opened.items()}, **sources.compiled.secrets}
