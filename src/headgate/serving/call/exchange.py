"""The life of one call.  Read this first; docs/life-of-a-request.md has the picture.

``serve`` performs it: authenticate, read, plan, admit, then attempt after attempt until one is delivered.  Each stage
returns here, none calls the next.  ``run`` is its edge: every way out of a call passes through it, and each leaves
exactly one receipt.
"""

from __future__ import annotations

import logging
import random
import time

from msgspec.structs import replace

from headgate.dialects.base import Client
from headgate.dialects.registry import BACKENDS
from headgate.errors import (
    INTERNAL,
    JOURNAL_FULL,
    UNSUPPORTED_ENCODING,
    UPSTREAM_HOLLOW,
    ClientGone,
    GatewayError,
    LimitReached,
)
from headgate.model import NO_OPTIONS, Attempt, Call, Limits, Plan
from headgate.policy import auth, saved_prompts
from headgate.policy.attempts.next_attempt import NextAttempt
from headgate.policy.attempts.progress import Step
from headgate.policy.routing.router import named_session
from headgate.ports import Asking
from headgate.serving.call import response_headers
from headgate.serving.call.admission.admitting import Admission
from headgate.serving.call.admission.queueing import CallQueue, MustWait, QueuedCall, latest_start
from headgate.serving.call.answering import CLIENT_CLOSED, Answering, Ending
from headgate.serving.call.counting import TokenCounting
from headgate.serving.call.probing import Probe
from headgate.serving.call.receipt import Ids, Receipt
from headgate.serving.call.recovery import Pause, Recovery
from headgate.serving.call.relay import Relay
from headgate.serving.client.egress import Egress
from headgate.serving.loop.wheel import Wheel
from headgate.serving.replay.cached import CachedAnswering, look_up
from headgate.serving.replay.keeper import ReplayKeeper
from headgate.serving.uplink.directory import SnapshotDirectory
from headgate.serving.uplink.journal import Journal, Refusals
from headgate.serving.upstream.carriers import Carriers
from headgate.wire import urls
from headgate.wire.http import Request, sane_label

_READ_AGAIN = 1 << 20  # bytes: a larger request that was refused is not looked through for its model

Admitted = tuple[Call, Plan, NextAttempt, Step, float]
"""A call as it runs, by which plan, with its first attempt, and its deadline (monotonic seconds)."""

log = logging.getLogger("headgate.exchange")
_monotonic = time.monotonic
_NOT_ASKED: tuple[Asking | None, bool] = None, False


class Exchange:
    """Performs calls.  Holds what they share; a call's own state is its Receipt and this coroutine's frame."""

    def __init__(
        self,
        directory: SnapshotDirectory,
        journal: Journal,
        refusals: Refusals,
        carriers: Carriers,
        wheel: Wheel,
        limits: Limits,
        ids: Ids,
        replay: ReplayKeeper,
    ) -> None:
        self._directory = directory
        self._journal = journal
        self._refusals = refusals
        self._carriers = carriers
        self._wheel = wheel
        self._limits = limits
        self._ids = ids
        self._replay = replay
        self._health = directory.health
        self._admission = Admission(directory.counters)
        self.queue = CallQueue(wheel, directory, carriers)
        self.counting = TokenCounting(directory, refusals, carriers, limits)

    async def run(self, request: Request, egress: Egress, client: Client) -> None:
        """One call, to its end, as ``client``'s API has it.  Raises nothing."""
        client, receipt = self._begin(request, client)
        try:
            ending = await self._serve(request, egress, client, receipt)
            if ending is None:
                return
            if egress.deserted:
                receipt.close("leave", "cancelled", 499, CLIENT_CLOSED, egress.bytes_out)
            else:
                receipt.finish(egress.bytes_out)
            if ending.fields is None:
                egress.end(ending.data)
            else:
                egress.answer(200, ending.fields, ending.data)
        except GatewayError as error:
            self._refuse(error, request, egress, client, receipt)
        except ClientGone:
            if receipt.answered_all:
                receipt.finish(egress.bytes_out)
            else:
                receipt.close("leave", "cancelled", 499, CLIENT_CLOSED, egress.bytes_out)
            egress.cut()  # one that is read to its end for nobody is not kept any longer either
        except Exception:  # the edge of a call: a bug of ours must not take the process with it
            log.exception("a bug in the exchange of %s", receipt.client_id)
            fault = GatewayError(INTERNAL, f"a fault in the gateway; its log tells more under {receipt.client_id}")
            receipt.give_up(fault.kind.status, fault.kind.code)
            if egress.committed:
                egress.cut()
            else:
                egress.answer(fault.kind.status, response_headers.of_error(fault, receipt), client.error_body(fault))

    def _begin(self, request: Request, client: Client) -> tuple[Client, Receipt]:
        """Return the client as this call speaks with it, and the call's receipt."""
        client = client.begin(request.path, request.query)
        return client, Receipt(self._ids, client.prefix, self._journal, request.received)

    def _admit(
        self, request: Request, egress: Egress, client: Client, receipt: Receipt, queued: QueuedCall | None = None
    ) -> Admitted | None:
        """The stages before the first attempt, in order.  None where the call repeats another one, whose answer this
        client then reads.  ``queued``: it has waited.  Raises MustWait where it may wait for a limit.
        """
        router = self._directory.router  # one world for the whole call
        headers = request.headers
        if b"x-request-id" in headers:
            receipt.label = sane_label(headers[b"x-request-id"])
        grant = receipt.grant = auth.check(headers, router.snapshot.tokens, self._directory.digester, receipt.at / 1e9)
        receipt.authed = _monotonic()
        if b"content-encoding" in headers:
            _check_encoding(headers[b"content-encoding"])
        keyed = b"idempotency-key" in headers
        if queued is not None:
            call, receipt.holding, receipt.cache = queued.call, None, None
        else:
            if keyed and self._replay.repeat(request, grant.id, egress):
                return None
            call = client.read(request.body)
            if call.saved_prompt is not None:
                call = saved_prompts.put_before(call, grant.tenant, router.snapshot.prompts, client.with_prompt)
        plan = router.plan(call, grant, headers)
        keeps = plan.keeps or call.options is not NO_OPTIONS
        if keeps:
            receipt.cache = use = look_up(self._replay.answers, call, plan, grant, headers)
            if use is not None and use.stored is not None:
                plan = replace(plan, attempts=(use.stored.attempt,))
        if request.query and _wants_trace(request):
            call.trace = True
        if not self._journal.accepting:
            raise GatewayError(
                JOURNAL_FULL,
                "the journal has no room for another receipt (is the disk full, or control behind?); try again shortly",
                retry_after=5,
            )
        receipt.prompt_tokens = call.prompt.tokens
        asked = call
        try:
            if not router.quotas.empty:
                call, plan = self._admission.admit(call, grant, plan, headers, receipt, router)
            next_attempt = NextAttempt(plan, self._health, random.random)
            deadline = _deadline(call, plan.attempts[0], receipt)
            if keeps or plan.alias.queue_size:
                step = self._first_step(next_attempt, deadline, plan, receipt, queued)
            else:
                step = next_attempt.first(self._wheel.now, deadline)
        except GatewayError as error:
            if isinstance(error, LimitReached) and plan.alias.queue_size:
                receipt.give_back()
                raise MustWait(asked, plan, error) from None
            if receipt.admitted:  # and none of its targets can be asked
                receipt.open(plan, call, named_session(call, headers))
            raise
        receipt.open(plan, call, named_session(call, headers))
        if keeps or keyed:
            self._replay.keep(request, client, call, plan, receipt, egress)
        receipt.meant, receipt.passed_over = next_attempt.intended, next_attempt.passed_over
        return call, plan, next_attempt, step, deadline

    def _first_step(
        self, next_attempt: NextAttempt, deadline: float, plan: Plan, receipt: Receipt, queued: QueuedCall | None
    ) -> Step:
        """The first attempt; of a hit of the cache the name of its target, which is not asked.  Raises GatewayError."""
        if receipt.cache is not None and receipt.cache.stored is not None:
            return Step(plan.attempts[0])
        if plan.alias.queue_size:
            return self.queue.first_attempt(next_attempt, deadline, receipt.holding, queued)
        return next_attempt.first(self._wheel.now, deadline)

    async def _serve(self, request: Request, egress: Egress, client: Client, receipt: Receipt) -> Ending | None:
        """Attempt after attempt, until one has delivered.  Returns None where the call repeats another one."""
        try:
            admitted = self._admit(request, egress, client, receipt)
        except MustWait as waits:
            admitted = await self._wait(waits, request, egress, client, receipt)
        if admitted is None:
            return None
        call, plan, next_attempt, step, deadline = admitted
        relay = self._relay(plan, egress, receipt, client) if call.stream else None
        answering = Answering(client, call, plan, receipt, relay, self._carriers, self._limits)
        if receipt.cache is not None:
            answering = CachedAnswering(client, call, plan, receipt, relay, self._carriers, self._limits)
            if receipt.cache.stored is not None:
                return await answering.tell_again(self._wheel, deadline)
        self._health.traffic[step.attempt.target.provider.name] += 1
        if step.claims:
            self._health.commit(step.attempt, step.claims, self._wheel.now)
        recovery: Recovery | None = None  # there has been a failure
        if step.wait:
            await self._pause(step.wait, relay, egress)
        while True:
            receipt.begin(step.attempt, step.why)
            asking, finished = _NOT_ASKED
            try:
                asking = self._ask(request, call, step.attempt, deadline, recovery, receipt)
                upstream = await asking
                receipt.answered(asking)
                account = step.attempt.account
                if account is not None and len(step.attempt.target.provider.accounts) > 1:
                    self._health.accounts.learn_limits(account, upstream.headers, self._wheel.now)
                await answering.read(upstream, step.attempt, recovery)
                finished = not receipt.stopped
                answering.end(upstream.status, "")
                if recovery is not None:
                    recovery.succeeded(step.attempt)
                if not (plan.ordered and self._health.quiet):  # else there is nothing to learn from it
                    tokens = receipt.usage.completion if receipt.first_token else 0
                    next_attempt.succeeded(self._wheel.now, receipt.first_token or receipt.head, tokens)
                return answering.conclude()
            except GatewayError as error:
                recovery = recovery or Recovery(call, plan, next_attempt, self._health, self._wheel, receipt, relay)
                if recovery.is_complete(step.attempt, answering.bridge):
                    answering.end(200, "")
                    return answering.conclude()
                answering.end(error.upstream_status or 0, error.kind.code)
                step = recovery.after(error, step, answering.bridge)
            except ClientGone:
                answering.leave()
                raise
            finally:
                if asking is not None:
                    asking.release(finished=finished)
            answering.forget()
            deadline = next_attempt.extend(_deadline(call, step.attempt, receipt))
            await self._pause(step.wait, relay, egress)
            if recovery.must_probe(step):
                await self._probe(receipt).find_trims(step.attempt, request.headers, deadline)
            recovery.prepare(step)

    async def _wait(
        self, waits: MustWait, request: Request, egress: Egress, client: Client, receipt: Receipt
    ) -> Admitted | None:
        """Try a call again each time that its turn may have come, until it is admitted.  Raises GatewayError, and
        ClientGone: none waits for nobody, unless its answer is kept for others.
        """
        call, plan, grant = waits.call, waits.plan, receipt.grant
        assert grant is not None
        since, authed, alias = _monotonic(), receipt.authed, plan.alias
        receipt.requested = plan.requested
        early = call.stream and alias.early_commit_s is not None
        latest = latest_start(alias, request.headers, receipt.received, _deadline(call, plan.attempts[0], receipt))
        queued = self.queue.enter(waits, grant, latest)
        served = False
        relay: Relay | None = None
        try:
            if early or b"idempotency-key" in request.headers:  # its stream's id or its key may be used from now on
                self._replay.keep(request, client, call, plan, receipt, egress)
            if early:
                relay = self._relay(plan, egress, receipt, client)
            while True:
                await queued.chance
                if egress.deserted:
                    raise ClientGone
                try:
                    admitted = self._admit(request, egress, client, receipt, queued)
                except MustWait as again:
                    self.queue.stand(queued, again.limit)
                else:
                    served = True
                    return admitted
        finally:
            self.queue.leave(queued, served=served)
            receipt.note_wait(since, authed)
            if relay is not None:
                relay.rest()

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

    def _relay(self, plan: Plan, egress: Egress, receipt: Receipt, client: Client) -> Relay:
        relay = Relay(egress, receipt, self._wheel, self._limits.keep_alive, client.keep_alive)
        if plan.alias.early_commit_s is not None:
            relay.commit_after(plan.alias.early_commit_s - receipt.waited)
        return relay

    def _probe(self, receipt: Receipt) -> Probe:
        return Probe(self._carriers, self._health, self._wheel, self._limits, receipt)

    def _ask(
        self, request: Request, call: Call, attempt: Attempt, deadline: float, recovery: Recovery | None,
        receipt: Receipt,
    ) -> Asking:  # fmt: skip
        target = attempt.target
        if recovery is None:
            asked, ask_usage = call, call.stream and self._health.asks_usage(target, self._wheel.now)
        else:
            asked, ask_usage = recovery.asked, recovery.asks_usage(attempt)
        rendered = BACKENDS[target.provider.dialect].render(asked, target, ask_usage)
        if rendered.dropped:
            receipt.drop(rendered.dropped)
        return self._carriers[target.provider.carrier].ask(
            attempt, rendered, request.headers, call.stream, deadline, self._limits.max_answer
        )

    def _refuse(self, error: GatewayError, request: Request, egress: Egress, client: Client, receipt: Receipt) -> None:
        """Ends a call that has no answer, or no whole one."""
        if receipt.grant is not None and not receipt.requested and len(request.body) <= _READ_AGAIN:
            receipt.requested = client.requested(request.body) or self._directory.router.snapshot.default_model
        self._admission.attach_standing(receipt, self._directory.router)
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
            egress.fail(client.error_event(error, receipt.client_id))
        else:
            egress.answer(error.kind.status, response_headers.of_error(error, receipt), client.error_body(error))


def _deadline(call: Call, attempt: Attempt, receipt: Receipt) -> float:
    """The end of the whole call, as far as this attempt's target knows."""
    total = attempt.target.timeouts.total
    return receipt.received + (min(total, call.timeout_ms / 1000) if call.timeout_ms else total)


def _check_encoding(encoding: bytes) -> None:
    if encoding.lower() != b"identity":
        raise GatewayError(UNSUPPORTED_ENCODING, "bodies are read as they are: send this one without Content-Encoding")


def _wants_trace(request: Request) -> bool:
    return dict(urls.parameters(request.query)).get("include_route_trace") in ("true", "1", "")
