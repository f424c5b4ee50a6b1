"""The life of one call.  Read this first; docs/life-of-a-request.md has the picture.

``serve`` performs it: authenticate, read, plan, admit, then attempt after attempt until one is delivered.  Each stage
returns here, none calls the next.  ``run`` is its edge: every way out of a call passes through it, and each leaves
exactly one receipt.
"""

from __future__ import annotations

import logging
import time
from typing import NamedTuple, cast
from urllib.parse import parse_qsl

from headgate.dialects import bridge as bridges
from headgate.dialects import openai_chat
from headgate.errors import (
    INTERNAL,
    NOT_YET_SUPPORTED,
    UNSUPPORTED_ENCODING,
    UPSTREAM_HOLLOW,
    ClientGone,
    GatewayError,
    Retry,
)
from headgate.model import Attempt, Call, Limits, Usage
from headgate.policy import admission, auth
from headgate.policy.health import Health, blames_our_field
from headgate.serving import heads
from headgate.serving.directory import Directory
from headgate.serving.egress import Egress
from headgate.serving.journal import Journal, Refusals
from headgate.serving.receipt import Ids, Receipt
from headgate.serving.relay import Relay
from headgate.serving.transport import Transport
from headgate.serving.upstream import Asking, Upstream
from headgate.serving.wheel import Wheel
from headgate.wire.codec import encode
from headgate.wire.http import Request, sane_label

PATH = "/chat/completions"

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
    ) -> None:
        self._directory = directory
        self._journal = journal
        self._refusals = refusals
        self._transport = transport
        self._wheel = wheel
        self._limits = limits
        self._ids = ids
        self._health = Health()

    async def run(self, request: Request, egress: Egress) -> None:
        """One call, to its end.  Raises nothing."""
        receipt = Receipt(self._ids, self._journal, request.received)
        try:
            ending = await self._serve(request, egress, receipt)
            receipt.close(ending.event, ending.outcome, 200, ending.code, egress.bytes_out)
            ending.send(egress)
        except GatewayError as error:
            self._refuse(error, egress, receipt)
        except ClientGone:
            receipt.close("leave", "cancelled", 499, "client_closed_request", egress.bytes_out)
        except Exception:  # the edge of a call: a bug of ours must not take the process with it
            log.exception("a bug in the exchange of %s", receipt.id)
            fault = GatewayError(INTERNAL, f"a fault in the gateway; its log tells more under {receipt.id}")
            receipt.give_up(fault.kind.status, fault.kind.code)
            if egress.committed:
                egress.cut()
            else:
                egress.answer(fault.kind.status, heads.of_error(fault, receipt), openai_chat.error_body(fault))

    async def _serve(self, request: Request, egress: Egress, receipt: Receipt) -> Ending:
        """The stages, in order.  Returns what is left to send once the receipt is closed."""
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
        if request.query or b"idempotency-key" in request.headers:
            _refuse_what_comes_later(request)
        call = openai_chat.read(request.body)
        plan = router.plan(call.model, grant)
        hold = admission.take(call, grant, journal_accepts=self._journal.accepting)
        receipt.open(plan, hold, call.stream)
        attempts = list(plan.attempts)
        bare: Attempt | None = None  # tried again without the field that only we have added: once a call
        for attempt in attempts:
            receipt.begin(attempt)
            asking: Asking | None = None
            finished = False
            try:
                ask_usage = attempt is not bare and self._health.asks_usage(attempt.target, self._wheel.now)
                asking = self._ask(request, call, attempt, receipt, ask_usage)
                upstream = await asking
                receipt.answered(asking)
                if upstream.streamed:
                    ending = await self._stream(upstream, call, attempt, egress, receipt)
                else:
                    ending = self._render(upstream, call, attempt, egress, receipt)
                finished = ending.event == "finish"
                if finished and attempt is bare:
                    self._health.rejects_usage(attempt.target, self._wheel.now)
                receipt.end(upstream.status, ending.code)
                return ending
            except GatewayError as error:
                receipt.end(error.upstream_status or 0, error.kind.code)
                if call.stream and ask_usage and bare is None and blames_our_field(error):
                    bare = attempt
                    attempts.insert(len(receipt.attempts), attempt)
                elif egress.committed or error.retry is Retry.NEVER or len(receipt.attempts) == len(attempts):
                    raise
            finally:
                if asking is not None:
                    asking.release(finished=finished)
        raise AssertionError("a plan has at least one attempt")

    def _ask(self, request: Request, call: Call, attempt: Attempt, receipt: Receipt, ask_usage: bool) -> Asking:
        target = attempt.target
        total = target.timeouts.total
        return self._transport.ask(
            attempt,
            PATH,
            request.headers,
            openai_chat.render(call, target.upstream_model, ask_usage=ask_usage, quirks=target.provider.quirks),
            call.stream,
            receipt.received + (min(total, call.timeout_ms / 1000) if call.timeout_ms else total),
            self._limits.max_answer,
        )

    async def _stream(
        self, upstream: Upstream, call: Call, attempt: Attempt, egress: Egress, receipt: Receipt
    ) -> Ending:
        """Relays until the bridge has seen the end.  An error before anything was visible is raised: another attempt
        may do better.
        """
        relay = self._relay(upstream, call, attempt, egress, receipt)
        try:
            await relay.start()
        finally:
            relay.stop()
            receipt.usage = relay.bridge.usage
        return _conclude(relay, receipt, call)

    def _render(self, upstream: Upstream, call: Call, attempt: Attempt, egress: Egress, receipt: Receipt) -> Ending:
        """An answer that came whole, for a client that asked for it so or for a stream.  Raises what is no answer."""
        if upstream.status != 200:
            raise openai_chat.failure(
                upstream.status, upstream.headers, upstream.body,
                provider=attempt.target.provider.name, secrets=self._transport.secrets_of(attempt), now=time.time(),
            )  # fmt: skip
        if call.stream:
            relay = self._relay(upstream, call, attempt, egress, receipt)
            events = openai_chat.stream_from_answer(upstream.body, relay.bridge, provider=attempt.target.provider.name)
            receipt.usage = relay.bridge.usage
            if events:
                relay.deliver(events)
            return _conclude(relay, receipt, call)
        came_streamed = b"event-stream" in upstream.headers.get(b"content-type", b"")
        read = openai_chat.answer_from_stream if came_streamed else openai_chat.answer
        answer = read(
            upstream.body, id=receipt.id, created=receipt.created, model=attempt.target.upstream_model,
            extra=_metadata(receipt), provider=attempt.target.provider.name,
            secrets=self._transport.secrets_of(attempt), prompt_tokens=receipt.usage.prompt,
        )  # fmt: skip
        receipt.usage = answer.usage or Usage(receipt.usage.prompt, answer.text_bytes >> 2)
        if answer.error is not None:
            raise answer.error
        if answer.hollow:
            raise GatewayError(UPSTREAM_HOLLOW, f"{attempt.target.provider.name} answered with nothing in it")
        return Ending("finish", "delivered", "", answer.body, heads.of_answer(receipt))

    def _relay(self, upstream: Upstream, call: Call, attempt: Attempt, egress: Egress, receipt: Receipt) -> Relay:
        provider = attempt.target.provider
        bridge = bridges.open_stream(
            provider.dialect, receipt.id, receipt.created, attempt.target.upstream_model, call.include_usage,
            provider=provider.name, secrets=self._transport.secrets_of(attempt), max_event=self._limits.max_event,
            prompt_tokens=receipt.usage.prompt,
        )  # fmt: skip
        return Relay(upstream, bridge, egress, receipt, self._wheel, self._limits.keep_alive)

    def _refuse(self, error: GatewayError, egress: Egress, receipt: Receipt) -> None:
        """Ends a call that has no answer."""
        if receipt.grant is None or not (receipt.opened or self._journal.accepting):
            self._refusals.count(error.kind.code)
        if receipt.opened:
            receipt.close(
                "fail", "hollow" if error.kind is UPSTREAM_HOLLOW else "failed", error.kind.status, error.kind.code
            )
        else:
            receipt.close("refuse", "refused", error.kind.status, error.kind.code)
        egress.answer(error.kind.status, heads.of_error(error, receipt), openai_chat.error_body(error))


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


def _refuse_what_comes_later(request: Request) -> None:
    """Options beside the body that this version does not act on: ignoring them would look like doing them."""
    if b"idempotency-key" in request.headers:
        raise GatewayError(
            NOT_YET_SUPPORTED,
            "Idempotency-Key is not supported by this version: a repeat would be a second call",
            param="Idempotency-Key",
        )
    for name, value in parse_qsl(request.query.decode("latin-1")):
        if name == "include_route_trace" and value != "false":
            raise GatewayError(
                NOT_YET_SUPPORTED, "'include_route_trace' is not supported by this version", param="include_route_trace"
            )


def _conclude(relay: Relay, receipt: Receipt, call: Call) -> Ending:
    """What a relay's verdict means.  Raises its error where the client has seen nothing yet."""
    bridge = relay.bridge
    error = bridge.error
    if error is None:
        extra = _metadata(receipt) if call.include_usage else None
        return Ending("finish", "delivered", "", bridge.tail(extra))
    if not relay.egress.committed:
        raise error
    return Ending("fail", "truncated", error.kind.code, bridge.tail())


def _metadata(receipt: Receipt) -> bytes:
    """The ``headgate`` object of an answer: who served it, and how long that took (milliseconds)."""
    attempt = cast(Attempt, receipt.target)
    now = _monotonic()
    return _METADATA % (
        encode(attempt.target.provider.name),
        encode(attempt.target.upstream_model),
        (now - receipt.received) * 1e3,
        ((receipt.first_token or now) - receipt.received) * 1e3,
        len(receipt.attempts) + 1,
    )


_METADATA = b'{"provider":%b,"provider_model":%b,"latency_ms":%.3f,"ttft_ms":%.3f,"fallback_used":false,"attempts":%d}'
