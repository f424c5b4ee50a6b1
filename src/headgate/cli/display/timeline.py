"""One call on one time axis: its attempts, and the phases of the one that answered.  Pure: a row of /requests in.

Every bar begins where its step began after the call was received, and is as long as the step took.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headgate.cli.display.layout import Drawing, Flexible, Group, Text, columns_of
from headgate.cli.display.terminal import milliseconds, table

NARROWEST, WIDEST = 10, 60  # columns of a bar
PIPED = 40
SHOWN_MS = 0.05  # a phase that took less is none: the connection was there, the queue was empty
_FIGURES = 24  # columns of FROM and TOOK with their gaps


@dataclass(frozen=True)
class TimelineStep:
    """``start`` and ``end`` are milliseconds after the call was received."""

    name: str
    start: float
    end: float
    style: str


def timeline(row: dict[str, Any]) -> Drawing:
    """The steps of a call.  A call that no provider was asked for, and one that still runs, has a sentence."""
    steps = list(steps_of(row))
    if not steps:
        if row["outcome"] == "lost":
            return Text("the data process ended during this call; how far it got is not known")
        return Text("it still runs: no timings yet" if row["outcome"] is None else "no provider was asked")
    return Flexible(lambda width: _drawn(steps, width))


def steps_of(row: dict[str, Any]) -> Iterator[TimelineStep]:
    """Each attempt, the phases of the last that answered, and the whole call."""
    attempts: list[dict[str, Any]] = row["attempts"]
    if not attempts:
        return
    answered = max((index for index, one in enumerate(attempts) if one["status"]), default=None)
    for index, one in enumerate(attempts):
        name = f"{one['provider']}/{one['model']}"
        style = "red" if one["code"] else "green"
        yield TimelineStep(
            f"{index + 1} {name}" if len(attempts) > 1 else name, one["started_ms"], one["ended_ms"], style
        )
        if index == answered:
            yield from _phases(row["timings_ms"], one, attempts[0]["started_ms"])
    end = row["timings_ms"]["total"] or attempts[-1]["ended_ms"]
    yield TimelineStep("whole call", 0, end, "dim")


def _phases(timings: dict[str, float | None], attempt: dict[str, Any], first: float) -> Iterator[TimelineStep]:
    """From the request's going out to its last byte.  ``first``: the start of the call's first attempt."""
    start, end, queue = attempt["started_ms"], attempt["ended_ms"], timings["queue"]
    if queue is None:
        return
    if queue <= first:  # in the queue of the alias, before the first attempt; a connection is waited for in one
        begin, until, at = first - queue, first, start
    else:
        begin, until, at = start, min(start + queue, end), min(start + queue, end)
    if until - begin >= SHOWN_MS:
        yield TimelineStep("  queue", begin, until, "blue")
    for name, took in (("  connect", timings["connect"]), ("  headers", timings["ttfb"])):
        if took is not None and took >= SHOWN_MS:
            yield TimelineStep(name, at, min(end, at + took), "blue")
            at = min(end, at + took)
    token = timings["ttft"]
    if token is not None and at <= token <= end:
        yield TimelineStep("  first token", at, token, "blue")
        yield TimelineStep("  text", token, end, "green")


def _drawn(steps: list[TimelineStep], width: int | None) -> Drawing:
    total = max(step.end for step in steps) or 1.0
    names = max(columns_of(step.name) for step in steps)
    room = PIPED if width is None else min(WIDEST, width - names - _FIGURES)
    rows = [
        (
            step.name,
            milliseconds(step.start),
            milliseconds(step.end - step.start),
            *((Text(_bar(step, total, room), step.style),) if room >= NARROWEST else ()),
        )
        for step in steps
    ]
    axis = (f"!0{milliseconds(total).rjust(room - 1)}",) if room >= NARROWEST else ()
    return Group(table("!STEP", ">FROM", ">TOOK", *axis, rows=rows, empty=""))


def _bar(step: TimelineStep, total: float, room: int) -> str:
    """At least one character, at most to the end of the axis."""
    begin = min(room - 1, int(step.start / total * room))
    end = max(begin + 1, min(room, round(step.end / total * room)))
    return " " * begin + "█" * (end - begin)
