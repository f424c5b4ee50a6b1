"""The life of one call.  Read this first; docs/life-of-a-request.md has the picture.

``serve`` performs it: authenticate, read, plan, admit, then attempt after attempt until one is delivered.  Each stage
returns here, none calls the next.  ``run`` is its edge: every way out of a call passes through it, and each leaves
exactly one receipt.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple, cast
from urllib.parse import parse_qsl

from headgate.dialects import bridge as bridges
from headgate.dialects import openai_chat
from headgate.errors import (
    INTERNAL,
    UNSUPPORTED_ENCODING,
    UPSTREAM_HOLLOW,
    ClientGone,
    GatewayError,
)
from headgate.model import Alias, Attempt, Call, Limits, Plan, Usage
from headgate.policy import auth
from headgate.policy.admission import holds
from headgate.policy.attempts import continuation
from headgate.policy.attempts.next_attempt import Course
from headgate.ports import StreamBridge
from headgate.serving.call import response_headers
from headgate.serving.call.probing import Probe
from headgate.serving.call.receipt import Ids, Receipt
from headgate.serving.call.recovery import Pause, Recovery, continues
from headgate.serving.call.relay import Relay
from headgate.serving.client.egress import Egress
from headgate.serving.loop.fiber import next_turn
from headgate.serving.loop.wheel import Wheel
from headgate.serving.replay.kept import Replay
from headgate.serving.uplink.directory import Directory
from headgate.serving.uplink.journal import Journal, Refusals
from headgate.serving.upstream.connection import SUCCESSES, Asking, Upstream
from headgate.serving.upstream.transport import Transport
from headgate.wire.http import Request, sane_label

PATH = "/chat/completions"
_READ_AGAIN = 1 << 20  # bytes: a larger request that was refused is not looked through for its model

log = logging.getLogger("headgate.exchange")
_monotonic = time.monotonic


class Exchange:
    """Performs calls.  Holds what they share; a call's own state is its Receipt and this coroutine's frame."""

    def __init__(
        self,
        directory: Directory,
        journal: Journal,
        refusals: Refusals,
        transport: Transport,
        wheel: Wheel,
        limits: Limits,
        ids: Ids,
        replay: Replay,
    ) -> None:
        self._directory = directory
        self._journal = journal
        self._refusals = refusals
        self._transport = transport
        self._wheel = wheel
        self._limits = limits
        self._ids = ids
        self._replay = replay
        self._health = directory.health

    async def run(self, request: Request, egress: Egress) -> None:
        """One call, to its end.  Raises nothing."""
        receipt = Receipt(self._ids, self._journal, request.received)
        try:
            ending = await self._serve(request, egress, receipt)
            if ending is None:
                return
            if egress.deserted:
                receipt.close("leave", "cancelled", 499, "client_closed_request", egress.bytes_out)
            else:
                receipt.close(ending.event, ending.outcome, 200, ending.code, egress.bytes_out)
            ending.send(egress)
        except GatewayError as error:
            self._refuse(error, request, egress, receipt)
        except ClientGone:
            if receipt.answered_all:
                receipt.close("finish", "delivered", 200, "", egress.bytes_out)
            else:
                receipt.close("leave", "cancelled", 499, "client_closed_request", egress.bytes_out)
            egress.cut()  # one that is read to its end for nobody is not kept any longer either
        except Exception:  # the edge of a call: a bug of ours must not take the process with it
            log.exception("a bug in the exchange of %s", receipt.client_id)
            fault = GatewayError(INTERNAL, f"a fault in the gateway; its log tells more under {receipt.client_id}")
            receipt.give_up(fault.kind.status, fault.kind.code)
            if egress.committed:
                egress.cut()
            else:
                egress.answer(
                    fault.kind.status, response_headers.of_error(fault, receipt), openai_chat.error_body(fault)
                )

    async def _serve(self, request: Request, egress: Egress, receipt: Receipt) -> Ending | None:
        """The stages, in order.  Returns what is left to send once the receipt is closed; None where the call repeats
        another, whose answer this client then reads.
        """
        directory = self._directory
        router = directory.router  # one world for the whole call
        if b"x-request-id" in request.headers:
            receipt.label = sane_label(request.headers[b"x-request-id"])
        grant = receipt.grant = auth.check(
            request.headers, router.snapshot.tokens, directory.digester, receipt.at / 1e9
        )
        receipt.authed = _monotonic()
        if b"content-encoding" in request.headers and request.headers[b"content-encoding"].lower() != b"identity":
            raise GatewayError(
                UNSUPPORTED_ENCODING, "bodies are read as they are: send this one without Content-Encoding"
            )
        if b"idempotency-key" in request.headers and self._replay.repeat(request, grant.id, egress):
            return None
        call = openai_chat.read(request.body)
        plan = router.plan(call, grant, request.headers)
        if request.query and _wants_trace(request):
            call.trace = True
        hold = holds.take(call, grant, journal_accepts=self._journal.accepting)
        receipt.open(plan, hold, call.stream)
        self._replay.keep(request, call, plan, receipt, egress)
        course = Course(plan, self._health, random.random)
        deadline = _deadline(call, plan.attempts[0], receipt)
        step = course.first(self._wheel.now, deadline)
        receipt.meant = course.meant
        relay = self._relay(plan, egress, receipt) if call.stream else _NO_RELAY
        recovery: Recovery | None = None  # there has been a failure
        if step.wait:
            await self._pause(step.wait, relay, egress)
        while True:
            receipt.begin(step.attempt, step.why)
            asking: Asking | None = None
            finished = False
            try:
                asking = self._ask(request, call, step.attempt, deadline, recovery)
                upstream = await asking
                receipt.answered(asking)
                account = step.attempt.account
                if account is not None and len(step.attempt.target.provider.accounts) > 1:
                    self._health.accounts.learn_limits(account, upstream.headers, self._wheel.now)
                if upstream.streamed:
                    ending = await self._stream(upstream, call, step.attempt, receipt, relay, recovery)
                else:
                    ending = await self._render(upstream, call, step.attempt, receipt, relay, recovery)
                finished = True
                receipt.end(upstream.status, ending.code, recovery and recovery.delivered(step.attempt))
                tokens = receipt.usage.completion if receipt.first_token else 0
                course.succeeded(self._wheel.now, receipt.first_token or receipt.head, tokens)
                return ending
            except GatewayError as error:
                recovery = recovery or Recovery(call, plan, course, self._health, self._wheel, receipt, relay)
                following = recovery.after(error, step)
                if following is None:
                    ending = self._conclude(relay, receipt, call)
                    receipt.end(200, ending.code, recovery.own_usage())
                    return ending
                step = following
                deadline = course.extend(_deadline(call, step.attempt, receipt))
            finally:
                if asking is not None:
                    asking.release(finished=finished)
            await self._pause(step.wait, relay, egress)
            if recovery.must_probe(step):
                await self._probe(receipt).find_trims(step.attempt, request.headers, deadline)
            recovery.prepare(step)

    async def _pause(self, seconds: float, relay: Relay | None, egress: Egress) -> None:
        """Before an attempt that is not to start at once.  Raises ClientGone: none starts for nobody."""
        if egress.gone or egress.deserted:
            raise ClientGone
        if relay is not None:
            relay.linger()
        if seconds:
            await Pause(self._wheel, seconds)
            if egress.gone or egress.deserted:
                raise ClientGone

    def _probe(self, receipt: Receipt) -> Probe:
        return Probe(PATH, self._transport, self._health, self._wheel, self._limits, receipt)

    def _relay(self, plan: Plan, egress: Egress, receipt: Receipt) -> Relay:
        relay = Relay(egress, receipt, self._wheel, self._limits.keep_alive)
        if plan.alias.early_commit_s is not None:
            relay.commit_after(plan.alias.early_commit_s)
        return relay

    def _ask(
        self, request: Request, call: Call, attempt: Attempt, deadline: float, recovery: Recovery | None
    ) -> Asking:
        target = attempt.target
        if recovery is None:
            asked, ask_usage = call, call.stream and self._health.asks_usage(target, self._wheel.now)
        else:
            asked, ask_usage = recovery.asked, recovery.asks_usage(attempt)
        return self._transport.ask(
            attempt,
            PATH,
            request.headers,
            openai_chat.render(
                asked, target.upstream_model, ask_usage=ask_usage, row=target.row, quirks=target.provider.quirks
            ),
            call.stream,
            deadline,
            self._limits.max_answer,
        )

    async def _stream(
        self, upstream: Upstream, call: Call, attempt: Attempt, receipt: Receipt, relay: Relay,
        recovery: Recovery | None,
    ) -> Ending:  # fmt: skip
        """Relays until the bridge has seen the end.  An error is raised: another attempt may do better."""
        joint = recovery.joint(attempt) if recovery is not None else None
        relay.begin(upstream, self._bridge(upstream, call, attempt, receipt, relay, recovery), joint)
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
                _note_skipped(relay.bridge.skipped, attempt, receipt)
        return self._conclude(relay, receipt, call)

    async def _render(
        self, upstream: Upstream, call: Call, attempt: Attempt, receipt: Receipt, relay: Relay,
        recovery: Recovery | None,
    ) -> Ending:  # fmt: skip
        """An answer that came whole, for a client that asked for it so or for a stream.  Raises what is no answer."""
        provider, secrets = attempt.target.provider.name, self._transport.secrets_of(attempt)
        if upstream.status not in SUCCESSES:
            raise openai_chat.failure(
                upstream.status, upstream.headers, upstream.body, provider=provider, secrets=secrets, now=time.time(),
                sent=upstream.asking,
            )  # fmt: skip
        if call.stream:
            bridge = self._bridge(upstream, call, attempt, receipt, relay, recovery)
            relay.begin(upstream, bridge, recovery.joint(attempt) if recovery is not None else None)
            events = openai_chat.stream_from_answer(upstream.body, bridge, provider=provider)
            receipt.usage = bridge.usage
            if bridge.skipped:
                _note_skipped(bridge.skipped, attempt, receipt)
            if events:
                relay.deliver(events)
            return self._conclude(relay, receipt, call)
        found = openai_chat.whole_answer(
            upstream.body, id=receipt.client_id, created=receipt.created, model=attempt.target.upstream_model,
            extra=partial(response_headers.metadata, receipt), trace=receipt.trace if call.trace else None,
            provider=provider, secrets=secrets, prompt_tokens=receipt.usage.prompt, sent=upstream.asking,
        )  # fmt: skip
        answer = found if isinstance(found, openai_chat.Answer) else await _summed_up(found)
        if answer.skipped:
            _note_skipped(answer.skipped, attempt, receipt)
        if answer.error is not None:
            raise answer.error
        if answer.hollow:
            receipt.end(upstream.status, UPSTREAM_HOLLOW.code, answer.usage or Usage())  # it may have been billed
            raise GatewayError(UPSTREAM_HOLLOW, f"{provider} answered with nothing in it")
        receipt.usage = answer.usage or Usage(receipt.usage.prompt, answer.text_bytes >> 2)
        return Ending("finish", "delivered", "", answer.body, response_headers.of_answer(receipt))

    def _bridge(
        self, upstream: Upstream, call: Call, attempt: Attempt, receipt: Receipt, relay: Relay,
        recovery: Recovery | None,
    ) -> StreamBridge:  # fmt: skip
        provider, secrets = attempt.target.provider, self._transport.secrets_of(attempt)
        if recovery is not None and recovery.seam is not None:
            return bridges.join_stream(
                provider.dialect, relay.bridge, recovery.seam, attempt.target.upstream_model, call.include_usage,
                provider=provider.name, secrets=secrets, max_event=self._limits.max_event, sent=upstream.asking,
            )  # fmt: skip
        alias = cast(Plan, receipt.plan).alias
        return bridges.open_stream(
            provider.dialect, receipt.client_id, receipt.created, attempt.target.upstream_model, call.include_usage,
            provider=provider.name, secrets=secrets, max_event=self._limits.max_event,
            prompt_tokens=receipt.usage.prompt, keep=continues(call, alias),
            hold=_hold(call, alias) if alias.holds else "", choices=openai_chat.choices(call),
            sent=upstream.asking,
        )  # fmt: skip

    def _conclude(self, relay: Relay, receipt: Receipt, call: Call) -> Ending:
        """What a relay's verdict means.  Raises its error."""
        bridge = relay.bridge
        if bridge.error is not None:
            raise bridge.error
        relay.mark_seam()
        extra = response_headers.metadata(receipt, receipt.usage) if call.include_usage else None
        trace = receipt.trace(bridge.own_usage) if call.trace else None
        return Ending("finish", "delivered", "", bridge.tail(extra, trace))

    def _refuse(self, error: GatewayError, request: Request, egress: Egress, receipt: Receipt) -> None:
        """Ends a call that has no answer, or no whole one."""
        if receipt.grant is not None and not receipt.requested and len(request.body) <= _READ_AGAIN:
            receipt.requested = openai_chat.asked_for(request.body) or self._directory.router.snapshot.default_model
        if receipt.grant is None or not (receipt.opened or self._journal.accepting):
            self._refusals.count(error.kind.code)
        if not receipt.opened:
            receipt.close("refuse", "refused", error.kind.status, error.kind.code)
        else:
            seen = receipt.first_token > 0
            outcome = "hollow" if error.kind is UPSTREAM_HOLLOW else "truncated" if seen else "failed"
            status = 200 if seen else error.kind.status
            receipt.close("fail", outcome, status, error.kind.code, egress.bytes_out if seen else 0)
        if egress.committed:
            egress.fail(openai_chat.error_event(error, receipt.client_id))
        else:
            egress.answer(error.kind.status, response_headers.of_error(error, receipt), openai_chat.error_body(error))


class Ending(NamedTuple):
    """What is left to send when a call's receipt is closed: the terminal events of a stream, or all of a whole
    answer.
    """

    event: str  # of the lifecycle: finish | fail
    outcome: str
    code: str
    data: bytes
    fields: bytes | None = None  # None: a stream whose head is sent

    def send(self, egress: Egress) -> None:
        if self.fields is None:
            egress.end(self.data)
        else:
            egress.answer(200, self.fields, self.data)


async def _summed_up(parts: Iterator[openai_chat.Answer | None]) -> openai_chat.Answer:
    """The answer that ``parts`` end with, worked through in a turn of the loop each."""
    for answer in parts:
        if answer is not None:
            return answer
        await next_turn()
    raise AssertionError("an answer's parts end with the answer")


_NO_RELAY = cast(Relay, None)  # a whole answer has none


def _note_skipped(events: int, attempt: Attempt, receipt: Receipt) -> None:
    receipt.skip(events)
    target = attempt.target
    log.warning(
        "%s: %d event(s) of %s/%s could not be read and are not in the answer",
        receipt.client_id, events, target.provider.name, target.upstream_model,
    )  # fmt: skip


def _deadline(call: Call, attempt: Attempt, receipt: Receipt) -> float:
    """The end of the whole call, as far as this attempt's target knows."""
    total = attempt.target.timeouts.total
    return receipt.received + (min(total, call.timeout_ms / 1000) if call.timeout_ms else total)


def _wants_trace(request: Request) -> bool:
    query = dict(parse_qsl(request.query.decode("latin-1"), keep_blank_values=True))
    return query.get("include_route_trace") in ("true", "1", "")


def _hold(call: Call, alias: Alias) -> str:
    """What of a stream is not passed on before it is complete (see ChatStream)."""
    if alias.structured == "buffer" and openai_chat.obstacle(call) == "structured":
        return "all"
    return "tools" if alias.tool_calls == "hold" else ""
