"""``headgate conform URL``: runs the checks, shows the scorecard.  Sends no token but the one that it is given."""

from __future__ import annotations

from headgate.cli.display.layout import Text
from headgate.cli.display.terminal import draw, waiting
from headgate.cli.reach.gateway import Trouble
from headgate.conform import Check, Endpoint, EndpointProbe, Scorecard, Unreachable, run


def conform(url: str, token: str | None, model: str | None, *, as_json: bool, quick: bool, timeout: float) -> int:
    """Returns the exit code: 0 nothing failed, 1 something did.  Raises Trouble (2) where nothing can be checked."""
    try:
        probe = EndpointProbe(Endpoint.parse(url), token, model, timeout)
        card = _run(probe, quick)
    except Unreachable as trouble:
        raise Trouble(trouble.sentence, trouble.step, 2) from trouble
    if as_json:
        print(card.as_json())
    else:
        for text, colour in card.lines():
            draw(Text(text, colour))
    return card.exit_code


def _run(probe: EndpointProbe, quick: bool) -> Scorecard:
    """With a progress line on standard error, where that is a terminal."""
    with waiting("asking the model for a first stream") as update:

        def begun(check: Check) -> None:
            update(f"{check.id}: {check.what}")

        return run(probe, quick=quick, on_begin=begun)
