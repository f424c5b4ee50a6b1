"""The door from a client's connection to the paths that are served."""

from __future__ import annotations

from typing import Protocol

from headgate.errors import GatewayError
from headgate.serving.client.egress import Egress
from headgate.wire.http import Request


class Application(Protocol):
    """The receiver of the listener's requests."""

    def call(self, request: Request, egress: Egress) -> None:
        """Answer now or later.  Must not raise."""

    def reads_body(self, request: Request) -> bool:
        """True if the answer depends on the body of ``request``, of which only the head has come.

        False for an unknown caller: the body is not kept, and ``call`` gets the request without it.
        """

    def drain(self) -> None:
        """Refuse the requests that have not begun to be served: the process takes no more."""

    def refuse(self, error: GatewayError, request: Request, egress: Egress) -> None:
        """Answer a request that is not served, or that could be read only in part."""

    def allowed_origin(self, origin: bytes) -> bytes | None:
        """Return the value of Access-Control-Allow-Origin; None if the origin is not configured."""
