"""The carriers: the kinds of connection to an upstream, by name.  A call asks ``carriers[provider.carrier]``."""

from __future__ import annotations

from headgate.errors import UPSTREAM_UNREACHABLE, GatewayError
from headgate.ports import Carrier

HTTP = "http"


class Carriers(dict[str, Carrier]):
    """The carriers of this process, by kind.  Raises GatewayError for a kind that it does not have."""

    def __missing__(self, kind: str) -> Carrier:
        raise GatewayError(UPSTREAM_UNREACHABLE, f"this process has no carrier {kind!r} to reach the provider by")
