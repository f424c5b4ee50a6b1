"""What an upstream's answer becomes for one call's client: a stream that is relayed, or a whole answer.

Owns the answers of one call's attempts, in the client's API whichever the provider speaks.  Raises what is no answer:
another attempt may do better.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from headgate.dialects import registry
from headgate.dialects.base import Answer, Client, Reply
from headgate.dialects.registry import BACKENDS
from headgate.errors import UPSTREAM_HOLLOW, GatewayError
from headgate.model import NOTHING, Alias, Attempt, Call, Limits, Plan, Usage, Used
from headgate.policy.attempts import continuation
from headgate.ports import StreamBridge, Upstream
from headgate.serving.call import response_headers
from headgate.serving.call.recovery import Recovery, continues
from headgate.serving.call.relay import Pump, Relay
from headgate.serving.call.running import RunningCall
from headgate.serving.loop.fiber import next_turn
from headgate.serving.upstream.carriers import Carriers
from headgate.wire.http import SUCCESSES, returned

log = logging.getLogger("headgate.exchange")
CLIENT_CLOSED = "client_closed_request"


class Ending(Struct, frozen=True):
    """What is left to send when a call's receipt is closed: the terminal events of a stream, or all of a whole
    answer.
    """

    data: bytes
    fields: bytes | None = None  # None: a stream whose head is sent


class Answering(Struct):  # made in C, once a call
    """One call's.  ``relay`` is None for a client that asked for no stream.

    What follows is of the attempt that runs: ``pump`` once it has answered a client's stream, ``answer`` once it has
    answered a client that asked for none.
    """

    client: Client
    call: Call
    plan: Plan
    receipt: RunningCall
    relay: Relay | None
    carriers: Carriers
    limits: Limits
    pump: Pump | None = None
    answer: Answer | None = None

    async def read(self, upstream: Upstream, attempt: Attempt, recovery: Recovery | None) -> None:
        """Read the attempt's answer to its end.  Raises ClientGone, and what is no answer."""
        client, receipt, target = self.client, self.receipt, attempt.target
        provider = target.provider
        backend = BACKENDS[provider.dialect]
        reply = Reply(
            receipt.client_id, receipt.created, target.upstream_model, self.call.include_usage, provider.name,
            self.carriers[provider.carrier].secrets_of(attempt), self.limits.max_event, receipt.prompt_tokens,
            sent=upstream.asking, prompt=self.call.prompt, family=provider.family,
        )  # fmt: skip
        passes = backend.passes if backend.name == client.name else None
        if passes is not None and passes.returns:
            receipt.fields += returned(upstream.headers, passes.returns, reply.secrets)
        if upstream.streamed:
            await self._relay(upstream, reply, attempt, recovery)
            return
        if upstream.status not in SUCCESSES:
            error = backend.failure(upstream.status, upstream.headers, upstream.body, reply, time.time())
            if passes is not None:
                error.body = passes.refusal(upstream.body, reply, error)
            raise error
        if self.relay is not None:
            self._as_stream(upstream, reply, attempt, recovery)
            return
        if passes is not None:
            found = passes.answer(upstream.body, reply)
        else:
            found = registry.composed_answer(client, backend, upstream.body, reply)
        answer = found if isinstance(found, Answer) else await summed_up(found)
        self.answer = answer
        if answer.error is not None:
            raise answer.error
        if answer.hollow:
            said = f"{provider.name} answered with nothing in it"
            raise GatewayError(UPSTREAM_HOLLOW, said, upstream_status=upstream.status)

    async def _relay(self, upstream: Upstream, reply: Reply, attempt: Attempt, recovery: Recovery | None) -> None:
        """Relay a stream until its bridge has seen the end.  Raises its error, and ClientGone."""
        pump = self._pump(upstream, reply, attempt, recovery)
        try:
            await pump.start()
        finally:
            pump.stop()
        if pump.bridge.error is not None:
            raise pump.bridge.error

    def _as_stream(self, upstream: Upstream, reply: Reply, attempt: Attempt, recovery: Recovery | None) -> None:
        pump = self._pump(upstream, reply, attempt, recovery)
        events = pump.bridge.whole(upstream.body)
        if events:
            pump.deliver(events)
        if pump.bridge.error is not None:
            raise pump.bridge.error

    def _pump(self, upstream: Upstream, reply: Reply, attempt: Attempt, recovery: Recovery | None) -> Pump:
        relay = self.relay
        assert relay is not None  # only a call that asked for a stream is answered with one
        bridge = self._bridge(relay.bridge, reply, attempt, recovery)
        pump = self.pump = relay.begin(upstream, bridge, recovery.joint(attempt) if recovery is not None else None)
        return pump

    @property
    def bridge(self) -> StreamBridge | None:
        """That of the attempt that runs, where it has answered a client's stream."""
        return self.pump.bridge if self.pump is not None else None

    def end(self, status: int, code: str) -> None:
        """End the attempt that runs; arguments as ``Receipt.end`` has them."""
        pump, answer = self.pump, self.answer
        if pump is not None:
            used, skipped = pump.bridge.used, pump.bridge.skipped
            if self.receipt.stopped:
                used = _up_to(used, self.receipt)
        elif answer is not None:
            used, skipped = answer.used, answer.skipped
        else:
            used, skipped = NOTHING, 0
        if skipped:
            self._warn(skipped)
        self.receipt.end(status, code, used, skipped)

    def leave(self) -> None:
        """End the attempt that runs: its client has left."""
        receipt, bridge = self.receipt, self.bridge
        if bridge is not None and continuation.judge(bridge.delivered, None) is continuation.WHOLE:
            self.end(200, "")  # it has all there is to see
            return
        used = bridge.used if bridge is not None else NOTHING
        if receipt.usage == NOTHING.delivered:  # its provider has worked for it, whatever it has seen of that
            made = used.billed if used.billed != NOTHING.billed else Usage(receipt.prompt_tokens)
            used = Used(made, made)
        receipt.end(0, CLIENT_CLOSED, used, bridge.skipped if bridge is not None else 0)

    def forget(self) -> None:
        """The attempt is over, and another one will follow."""
        self.pump = None
        self.answer = None
        self.receipt.fields, self.receipt.dropped = b"", ()

    def conclude(self) -> Ending:
        """What is left to send when the last attempt has delivered and has ended."""
        receipt, call, pump = self.receipt, self.call, self.pump
        if pump is not None:
            pump.mark_seam()
            extra = receipt.metadata() if call.include_usage else None
            return Ending(pump.bridge.tail(receipt.usage, extra, receipt.trace() if call.trace else None))
        # A call without a relay has an answer
        body = self.answer.write(receipt.metadata(), receipt.trace() if call.trace else None)  # type: ignore[union-attr]
        return Ending(body, response_headers.of_answer(receipt))

    def _bridge(
        self, before: StreamBridge | None, reply: Reply, attempt: Attempt, recovery: Recovery | None
    ) -> StreamBridge:
        backend = BACKENDS[attempt.target.provider.dialect]
        if before is not None and recovery is not None and recovery.seam is not None:
            reply.before = self.receipt.usage
            return registry.join_stream(self.client, backend, before, recovery.seam, reply)
        call, alias = self.call, self.plan.alias
        reply.keep = continues(call, alias)
        reply.choices = call.prompt.choices
        if alias.holds or self.client.whole_calls:
            reply.hold = _hold(call, alias, self.client)
        return registry.open_stream(self.client, backend, reply)

    def _warn(self, events: int) -> None:
        receipt = self.receipt
        target = receipt.target.target if receipt.target is not None else None
        log.warning(
            "%s: %d event(s) of %s/%s could not be read and are not in the answer",
            receipt.client_id, events, target.provider.name if target else "", target.upstream_model if target else "",
        )  # fmt: skip


def _up_to(used: Used, receipt: RunningCall) -> Used:
    """What was delivered before the call's hold ended: the rest has come, and was not sent."""
    hold = receipt.holding.hold if receipt.holding is not None else None
    if hold is None:
        return used
    most = max(0, hold.covered - receipt.usage.completion)
    return Used(replace(used.delivered, completion=min(used.delivered.completion, most)), used.billed)


async def summed_up(parts: Iterator[Answer | None]) -> Answer:
    """The answer that ``parts`` end with, worked through in a turn of the loop each."""
    for answer in parts:
        if answer is not None:
            return answer
        await next_turn()
    raise AssertionError("an answer's parts end with the answer")


def _hold(call: Call, alias: Alias, client: Client) -> str:
    """What of a stream is not passed on before it is complete (see ``base.Reply``)."""
    if alias.structured == "buffer" and call.prompt.obstacle == "structured":
        return "all"
    return "tools" if alias.tool_calls == "hold" or client.whole_calls else ""
