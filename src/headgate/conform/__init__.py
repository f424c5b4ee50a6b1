"""``headgate conform``: any OpenAI-compatible endpoint against the contract that this gateway keeps.

Owns a table of checks.  Each is a small function that reads real bytes from a real socket and reports its evidence.  It
repairs nothing, does not know this gateway's code, and needs only the standard library: of Headgate it imports only
itself.

::

    probe = EndpointProbe(Endpoint.parse("http://127.0.0.1:4000/v1"), token, model)     # raises Unreachable
    card = run(probe)                                                                   # Scorecard
"""

from __future__ import annotations

import time
from collections.abc import Callable

from headgate.conform import answers, connections, refusals, streams
from headgate.conform.probe import EndpointProbe
from headgate.conform.scorecard import Scorecard, ScorecardLine
from headgate.conform.table import CHECKS, GROUPS, Check, CheckVerdict, failed
from headgate.conform.wire import Endpoint, Unreachable

__all__ = [
    "CHECKS",
    "CHECK_FILES",
    "Check",
    "CheckVerdict",
    "Endpoint",
    "EndpointProbe",
    "Scorecard",
    "Unreachable",
    "run",
]
CHECK_FILES = (streams, answers, refusals, connections)  # importing them fills CHECKS


def run(
    probe: EndpointProbe, *, quick: bool = False, on_begin: Callable[[Check], None] = lambda check: None
) -> Scorecard:
    """Run every check in the table's order; ``on_begin`` is called before each.

    Raises Unreachable if the endpoint does not answer, or refuses the token or the model.  If it stops answering later,
    the check that runs then fails.
    """
    _refuse_strangers(probe)
    results: list[ScorecardLine] = []
    for check in sorted(CHECKS.values(), key=lambda check: list(GROUPS).index(check.group)):
        if quick and check.slow:
            continue
        on_begin(check)
        began = time.monotonic()
        try:
            verdict = check.run(probe)
        except Unreachable as gone:
            verdict = failed(gone.sentence)
        results.append(ScorecardLine(check, verdict, time.monotonic() - began))
    base = f"{'https' if probe.endpoint.tls else 'http'}://{probe.endpoint.authority}{probe.endpoint.base}"
    return Scorecard(base, probe.model, results)


def _refuse_strangers(probe: EndpointProbe) -> None:
    first = probe.plain.response
    error = refusals.error_of(first)
    message = str(error.get("message") or "")[:200]
    if not first.status:
        raise Unreachable(
            f"{probe.endpoint.authority} accepts connections, but: {first.summary}", "is it an HTTP server?"
        )
    if first.status in (401, 403):
        raise Unreachable(f"the endpoint refuses the token: {first.status} {message}", "give one with --token")
    if first.status in (400, 404) and (error.get("code") == "model_not_found" or error.get("param") == "model"):
        raise Unreachable(f"the endpoint does not have the model {probe.model}: {message}", "name another with --model")
    if first.status == 404:
        raise Unreachable(f"there is no chat API below {probe.endpoint.base}", "give the base URL, usually with /v1")
