"""How often a login may be tried: per name and per address, in memory.  Pure: time is an argument.

A success gives its try back.  Names that no user has are counted like others; a login elsewhere (OIDC) has no name.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from headgate.model.bounded import Bounded

MAX_KEYS = 20_000


@dataclass(frozen=True, slots=True)
class LoginAllowance:
    """``burst`` tries at once, then one more each ``each_s``."""

    burst: int
    each_s: float


BY_NAME = LoginAllowance(10, 6.0)
BY_ADDRESS = LoginAllowance(60, 1.0)  # behind a proxy all callers have its address


@dataclass(slots=True)
class LoginThrottle:
    """Mutable: for each key, the time at which all its tries are there again."""

    _full_at: Bounded[tuple[str, str], float] = field(default_factory=lambda: Bounded(MAX_KEYS))

    def wait(self, name: str | None, address: str, now: float) -> float:
        """Counts a try.  Returns the seconds until the next one is allowed, 0: this one is."""
        keys = self._keys(name, address)
        waits = [self._after_one(key, allowance, now) - now - allowance.burst * allowance.each_s
                 for key, allowance in keys]  # fmt: skip
        longest = max(waits)
        if longest > 0:
            return longest
        for key, allowance in keys:
            self._full_at.put(key, self._after_one(key, allowance, now))
        return 0.0

    def give_back(self, name: str | None, address: str) -> None:
        """The try was a success."""
        for key, allowance in self._keys(name, address):
            if key in self._full_at:
                self._full_at[key] -= allowance.each_s

    def _after_one(self, key: tuple[str, str], allowance: LoginAllowance, now: float) -> float:
        return max(self._full_at.get(key, 0.0), now) + allowance.each_s

    @staticmethod
    def _keys(name: str | None, address: str) -> list[tuple[tuple[str, str], LoginAllowance]]:
        found = [(("address", network(address)), BY_ADDRESS)]
        return found if name is None else [(("name", name.casefold()[:256]), BY_NAME), *found]


def network(address: str) -> str:
    """The address; of IPv6 its /64, which is one customer."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False))
