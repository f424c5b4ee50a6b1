"""What an upstream's answer becomes for one call's client: a stream that is relayed, or a whole answer.

Owns the answers of one call's attempts, in the client's API whichever the provider speaks.  Raises what is no answer:
another attempt may do better.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import NamedTuple

from msgspec import Struct

from headgate.dialects import registry
from headgate.dialects.base import Answer, Client, Extras, Reply
from headgate.dialects.registry import BACKENDS
from headgate.errors import UPSTREAM_HOLLOW, ClientGone, GatewayError
from headgate.model import Alias, Attempt, Call, Limits, Plan, Usage
from headgate.policy.attempts import continuation
from headgate.ports import StreamBridge, Upstream
from headgate.serving.call import response_headers
from headgate.serving.call.receipt import Receipt
from headgate.serving.call.recovery import Recovery, continues
from headgate.serving.call.relay import Relay
from headgate.serving.loop.fiber import next_turn
from headgate.serving.upstream.carriers import Carriers
from headgate.wire.http import SUCCESSES

log = logging.getLogger("headgate.exchange")


class Ending(NamedTuple):
    """What is left to send when a call's receipt is closed: the terminal events of a stream, or all of a whole
    answer.
    """

    data: bytes
    fields: bytes | None = None  # None: a stream whose head is sent


class Answering(Struct, frozen=True):  # made in C, once a call
    """One call's.  ``relay`` is None for a client that asked for no stream."""

    client: Client
    call: Call
    plan: Plan
    receipt: Receipt
    relay: Relay | None
    carriers: Carriers
    limits: Limits

    async def answer(self, upstream: Upstream, attempt: Attempt, recovery: Recovery | None) -> Ending:
        """What is left to send when the attempt has delivered.  Raises ClientGone, and what is no answer."""
        client, receipt, target = self.client, self.receipt, attempt.target
        provider = target.provider
        backend = BACKENDS[provider.dialect]
        reply = Reply(
            receipt.client_id, receipt.created, target.upstream_model, self.call.include_usage, provider.name,
            self.carriers[provider.carrier].secrets_of(attempt), self.limits.max_event, receipt.usage.prompt,
            sent=upstream.asking,
        )  # fmt: skip
        if upstream.streamed:
            return await self._stream(upstream, reply, attempt, recovery)
        if upstream.status not in SUCCESSES:
            raise backend.failure(upstream.status, upstream.headers, upstream.body, reply, time.time())
        if self.relay is not None:
            return self._as_stream(self.relay, upstream, reply, attempt, recovery)
        extras = Extras(receipt.metadata, receipt.trace if self.call.trace else None)
        passes = backend.passes
        if passes is not None and backend.name == client.name:
            found = passes.answer(upstream.body, reply, extras)
        else:
            found = registry.composed_answer(client, backend, upstream.body, reply, extras)
        answer = found if isinstance(found, Answer) else await summed_up(found)
        if answer.skipped or answer.hollow or answer.error is not None:
            self._judge(answer, upstream, attempt)
        receipt.usage = answer.usage or Usage(receipt.usage.prompt, answer.text_bytes >> 2)
        return Ending(answer.body, response_headers.of_answer(receipt))

    async def _stream(self, upstream: Upstream, reply: Reply, attempt: Attempt, recovery: Recovery | None) -> Ending:
        """Relay until the bridge has seen the end.  Raises its error, and ClientGone."""
        relay, receipt = self.relay, self.receipt
        assert relay is not None  # only a call that asked for a stream is answered with one
        joint = recovery.joint(attempt) if recovery is not None else None
        relay.begin(upstream, self._bridge(reply, attempt, recovery), joint)
        try:
            await relay.start()
        except ClientGone:
            bridge = relay.bridge
            if continuation.judge(bridge.delivered, None) is continuation.WHOLE:  # it has all there is to see
                receipt.end(upstream.status, "", bridge.own_usage)
            elif receipt.attempts:
                receipt.end(0, "client_closed_request", bridge.own_usage)
            raise
        finally:
            relay.stop()
            receipt.usage = relay.bridge.usage
            if relay.bridge.skipped:
                self._note_skipped(relay.bridge.skipped, attempt)
        return self.conclude()

    def _judge(self, answer: Answer, upstream: Upstream, attempt: Attempt) -> None:
        """Note what is missing from a whole answer.  Raises what is no answer."""
        if answer.skipped:
            self._note_skipped(answer.skipped, attempt)
        if answer.error is not None:
            raise answer.error
        if answer.hollow:
            used = answer.usage or Usage()  # it may have been billed
            self.receipt.end(upstream.status, UPSTREAM_HOLLOW.code, used)
            raise GatewayError(UPSTREAM_HOLLOW, f"{attempt.target.provider.name} answered with nothing in it")

    def conclude(self) -> Ending:
        """What a relay's verdict means.  Raises its error."""
        relay, receipt, call = self.relay, self.receipt, self.call
        assert relay is not None
        bridge = relay.bridge
        if bridge.error is not None:
            raise bridge.error
        relay.mark_seam()
        extra = receipt.metadata(receipt.usage) if call.include_usage else None
        trace = receipt.trace(bridge.own_usage) if call.trace else None
        return Ending(bridge.tail(extra, trace))

    def _as_stream(
        self, relay: Relay, upstream: Upstream, reply: Reply, attempt: Attempt, recovery: Recovery | None
    ) -> Ending:
        bridge = self._bridge(reply, attempt, recovery)
        relay.begin(upstream, bridge, recovery.joint(attempt) if recovery is not None else None)
        events = bridge.whole(upstream.body)
        self.receipt.usage = bridge.usage
        if bridge.skipped:
            self._note_skipped(bridge.skipped, attempt)
        if events:
            relay.deliver(events)
        return self.conclude()

    def _bridge(self, reply: Reply, attempt: Attempt, recovery: Recovery | None) -> StreamBridge:
        backend = BACKENDS[attempt.target.provider.dialect]
        if recovery is not None and recovery.seam is not None and self.relay is not None:
            return registry.join_stream(self.client, backend, self.relay.bridge, recovery.seam, reply)
        call, alias = self.call, self.plan.alias
        reply.keep = continues(call, alias)
        reply.choices = call.prompt.choices
        if alias.holds:
            reply.hold = _hold(call, alias)
        return registry.open_stream(self.client, backend, reply)

    def _note_skipped(self, events: int, attempt: Attempt) -> None:
        self.receipt.skip(events)
        target = attempt.target
        log.warning(
            "%s: %d event(s) of %s/%s could not be read and are not in the answer",
            self.receipt.client_id, events, target.provider.name, target.upstream_model,
        )  # fmt: skip


async def summed_up(parts: Iterator[Answer | None]) -> Answer:
    """The answer that ``parts`` end with, worked through in a turn of the loop each."""
    for answer in parts:
        if answer is not None:
            return answer
        await next_turn()
    raise AssertionError("an answer's parts end with the answer")


def _hold(call: Call, alias: Alias) -> str:
    """What of a stream is not passed on before it is complete (see ``base.Reply``)."""
    if alias.structured == "buffer" and call.prompt.obstacle == "structured":
        return "all"
    return "tools" if alias.tool_calls == "hold" else ""
