"""A check, and the table of all checks.

A check is a small function of an EndpointProbe that returns one CheckVerdict.  It says what it looks for, and how the
absence of that has broken clients.  Users act on a failed line only if it says why it matters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from headgate.conform.probe import EndpointProbe

State = Literal["pass", "fail", "warn", "skip"]
GROUPS = {
    "stream": "A stream",
    "answer": "A whole answer",
    "errors": "Errors",
    "headers": "Headers",
    "http": "HTTP",
}


@dataclass(frozen=True)
class CheckVerdict:
    """The result of a check.  ``evidence``: the observation, for one line of a terminal."""

    state: State
    evidence: str


def passed(evidence: str) -> CheckVerdict:
    return CheckVerdict("pass", evidence)


def failed(evidence: str) -> CheckVerdict:
    return CheckVerdict("fail", evidence)


def warned(evidence: str) -> CheckVerdict:
    return CheckVerdict("warn", evidence)


def skipped(evidence: str) -> CheckVerdict:
    return CheckVerdict("skip", evidence)


def judged(fault: str | None, evidence: str) -> CheckVerdict:
    """Return a pass with ``evidence``, or a failure with ``fault``."""
    return passed(evidence) if fault is None else failed(fault)


@dataclass(frozen=True)
class Check:
    """One line of the scorecard.  ``id`` is ``<group>.<name>``; ``slow`` ones are left out by --quick."""

    id: str
    what: str
    why: str
    run: Callable[[EndpointProbe], CheckVerdict]
    slow: bool = False

    @property
    def group(self) -> str:
        return self.id.partition(".")[0]


CHECKS: dict[str, Check] = {}


def check(
    ident: str, what: str, why: str, *, slow: bool = False
) -> Callable[[Callable[[EndpointProbe], CheckVerdict]], Callable[[EndpointProbe], CheckVerdict]]:
    """Enter a function into the table, in the order of definition."""

    def enter(run: Callable[[EndpointProbe], CheckVerdict]) -> Callable[[EndpointProbe], CheckVerdict]:
        if ident in CHECKS:
            raise ValueError(f"two checks are named {ident}")
        CHECKS[ident] = Check(ident, what, why, run, slow)
        return run

    return enter
