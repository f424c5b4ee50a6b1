"""Calls with hooks: an Exchange that puts them between a client and the call, and tells them of its end."""

from __future__ import annotations

import time
from typing import Any

from headgate.dialects.base import Client
from headgate.errors import GatewayError
from headgate.hooks.api import CallSummary
from headgate.hooks.chain import Hooks
from headgate.hooks.client import HookedClient
from headgate.serving.call.exchange import Exchange
from headgate.serving.call.receipt import Receipt
from headgate.serving.client.egress import Egress
from headgate.wire.http import Request


class HookedExchange(Exchange):
    """Every call of it has hooks.  ``parts`` are an Exchange's."""

    def __init__(self, hooks: Hooks, *parts: Any) -> None:
        super().__init__(*parts)
        self._hooks = hooks
        self.counting.forwards = False

    def _begin(self, request: Request, client: Client) -> tuple[Client, Receipt]:
        hooked = HookedClient(client.begin(request.path, request.query), self._hooks)
        receipt = HookedReceipt(self._ids, client.prefix, self._journal, request.received)
        receipt.hooks, receipt.acted = self._hooks, hooked.acted
        return hooked, receipt

    def _refuse(self, error: GatewayError, request: Request, egress: Egress, client: Client, receipt: Receipt) -> None:
        if egress.committed and isinstance(client, HookedClient):
            held = client.flush()
            if held:
                egress.send(held)
        super()._refuse(error, request, egress, client, receipt)


class HookedReceipt(Receipt):
    """Names the hooks that have acted in its trace, and gives the hooks a summary when it is closed."""

    hooks: Hooks
    acted: dict[str, None]

    def trace_members(self) -> dict[str, object]:
        return {**super().trace_members(), "hooks": list(self.acted)}

    def close(self, event: str, outcome: str, status: int, code: str, bytes_out: int = 0) -> None:
        super().close(event, outcome, status, code, bytes_out)
        if self.hooks.on_receipt and self.grant is not None:
            self.hooks.summarise(self._summary(outcome, status, code))

    def _summary(self, outcome: str, status: int, code: str) -> CallSummary:
        target = self.target.target if self.target is not None else None
        return CallSummary(
            self.id,
            self.grant.id if self.grant is not None else "",
            self.requested,
            outcome,
            status,
            code,
            target.provider.name if target is not None else "",
            target.upstream_model if target is not None else "",
            self.usage.prompt,
            self.usage.completion,
            self.cost,
            time.monotonic() - self.received,
            tuple(self.acted),
        )
