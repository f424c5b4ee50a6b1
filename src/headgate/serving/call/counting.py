"""How many tokens a request has, before anyone pays for it: asked of its first target, else estimated.

Counts against no limit and no budget, and leaves no record.  A target that does not answer in time, or cannot count,
costs the client nothing but the exactness of the figure.
"""

from __future__ import annotations

import logging
import time

from headgate.dialects.base import Client, CountedBy
from headgate.dialects.registry import BACKENDS
from headgate.errors import INTERNAL, ClientGone, GatewayError
from headgate.model import Attempt, Call, Limits
from headgate.policy import auth, saved_prompts
from headgate.serving.call import response_headers
from headgate.serving.client.egress import Egress
from headgate.serving.uplink.directory import SnapshotDirectory
from headgate.serving.uplink.journal import Refusals
from headgate.serving.upstream.carriers import Carriers
from headgate.wire.http import Request

log = logging.getLogger("headgate.counting")
PATIENCE_S = 5.0


class TokenCounting:
    """``forwards``: requests may be sent to a target as they came.  Hooks may have to change them first."""

    forwards = True

    def __init__(self, directory: SnapshotDirectory, refusals: Refusals, carriers: Carriers, limits: Limits) -> None:
        self._directory = directory
        self._refusals = refusals
        self._carriers = carriers
        self._limits = limits

    async def run(self, request: Request, egress: Egress, client: Client, counts: CountedBy) -> None:
        """Answer one question, as ``client``'s API has it.  Raises nothing."""
        try:
            tokens, source = await self._count(request, client, counts)
            egress.answer(200, b"x-headgate-counted-by: %b\r\n" % source.encode(), counts.answer(tokens))
        except ClientGone:
            return
        except GatewayError as error:
            self._refusals.count(error.kind.code)
            egress.answer(error.kind.status, response_headers.of_refusal(error), client.error_body(error))
        except Exception:  # the edge of a question, as that of a call
            log.exception("a bug in the counting of tokens")
            fault = GatewayError(INTERNAL, "a fault in the gateway; its log tells more")
            egress.answer(fault.kind.status, b"", client.error_body(fault))

    async def _count(self, request: Request, client: Client, counts: CountedBy) -> tuple[int, str]:
        """The tokens, and the provider that has counted them, or ``estimate``."""
        directory = self._directory
        grant = auth.check(request.headers, directory.snapshot.tokens, directory.digester, time.time())
        call = counts.read(request.body)
        call = saved_prompts.put_before(call, grant.tenant, directory.snapshot.prompts, client.with_prompt)
        attempt = directory.router.plan(call, grant, request.headers).attempts[0]
        tokens = await self._ask(call, attempt, request.headers) if self.forwards else None
        if tokens is None:
            return call.prompt.tokens, "estimate"
        return tokens, attempt.target.provider.name

    async def _ask(self, call: Call, attempt: Attempt, headers: dict[bytes, bytes]) -> int | None:
        """The target's own count; None if it has none.  Raises ClientGone."""
        provider = attempt.target.provider
        counting = BACKENDS[provider.dialect].counts
        if counting is None:
            return None
        rendered = counting.render(call, attempt.target)
        asking, finished = None, False
        try:
            deadline = time.monotonic() + PATIENCE_S
            carrier = self._carriers[provider.carrier]
            asking = carrier.ask(attempt, rendered, headers, False, deadline, self._limits.max_answer)
            upstream = await asking
            finished = True
            return counting.read(upstream.body) if upstream.status == 200 else None
        except GatewayError:
            return None
        finally:
            if asking is not None:
                asking.release(finished=finished)
