"""Journal records → rows.  Pure: no I/O, no clock.

Owns what is known of running calls, per boot.  An Opened and a Closed that come in one batch make one row.  A call
that stays open gets a row without an outcome, so that a restarted control finds it again.  Applying the same records
twice gives the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import replace

from headgate.model import Closed, Opened, Price, Progress, Record, Refused, Rotated, Usage
from headgate.policy.metering import cost
from headgate.wire.records import HEADER, scan

Row = tuple[Any, ...]

_attempts = msgspec.json.Encoder().encode
_UNOPENED = Opened("", 0, "", "", False, 0)
# Of tokens, and of nano-USD (a million dollars), in one call.  More is a fault of whoever reported it, and must not
# make a sum that the store's integers cannot hold.
MOST = 1 << 50
EARLIER_PREFIX = "chatcmpl-"


class Running:
    """A call that has been opened and not closed.  ``stored``: it has a row."""

    __slots__ = ("at", "completion", "done", "opened", "stored")

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.completion = 0
        self.at = opened.at  # when it was last heard of
        self.done = False
        self.stored = False


@dataclass(slots=True)
class Batch:
    """Rows to be written, in the order of the tables' columns (see ``recorder.Statements``)."""

    opened: list[Row] = field(default_factory=list)
    progressed: list[Row] = field(default_factory=list)  # (completion tokens, µs since opened, id)
    closed: list[Row] = field(default_factory=list)
    refused: list[Row] = field(default_factory=list)  # (second, code, count)

    def __bool__(self) -> bool:
        return bool(self.opened or self.progressed or self.closed or self.refused)


class Receipts:
    """Takes records in the order of their file, gives batches."""

    def __init__(self) -> None:
        self._boots: dict[str, dict[str, Running]] = {}
        self._fresh: list[tuple[str, Running]] = []
        self._heard: dict[str, Running] = {}
        self._closed: list[Row] = []
        self._refused: dict[tuple[int, str], int] = {}
        self.unreadable = 0

    @property
    def running(self) -> int:
        return sum(map(len, self._boots.values()))

    def boots(self) -> list[str]:
        """The boots that have running calls."""
        return [boot for boot, calls in self._boots.items() if calls]

    def remember(self, boot: str, opened: Opened, completion: int, elapsed_us: int) -> None:
        """A running call as the store has it from an earlier life of control."""
        call = Running(opened)
        call.stored = True
        call.completion = completion
        call.at = opened.at + elapsed_us * 1000
        self._boots.setdefault(boot, {})[opened.id] = call

    def ingest(self, boot: str, buffer: bytes) -> tuple[int, bool]:
        """Takes the whole records at the start of ``buffer``.  Returns how many bytes they are, and whether the
        segment ends with them.  A record that is sound but of an unknown kind (a newer writer's) is stepped over and
        counted.
        """
        end = 0
        while True:
            try:
                for record, end in scan(buffer, end):  # noqa: B020  (a fresh scan goes on where the last one stopped)
                    if self._take(boot, _with_bare_id(record)):
                        return end, True
                return end, False
            except msgspec.DecodeError:
                self.unreadable += 1
                end += HEADER.size + HEADER.unpack_from(buffer, end)[0]

    def _take(self, boot: str, record: Record) -> bool:
        match record:
            case Opened():
                call = Running(record)
                self._boots.setdefault(boot, {})[record.id] = call
                self._fresh.append((boot, call))
            case Closed():
                known = self._boots.get(boot, {}).pop(record.id, None)
                if known is not None:
                    known.done = True
                self._closed.append(_closed_row(boot, known.opened if known else _UNOPENED, record))
            case Progress():
                known = self._boots.get(boot, {}).get(record.id)
                if known is not None:
                    known.completion = record.completion_tokens
                    known.at = record.at
                    self._heard[record.id] = known
            case Refused():
                key = (record.at // 1_000_000_000, record.code)
                self._refused[key] = self._refused.get(key, 0) + record.count
            case Rotated():
                return True
        return False

    def lose(self, boot: str) -> int:
        """End a boot that is gone and completely read: its open calls become ``lost``.  Returns how
        many.
        """
        calls = self._boots.pop(boot, {})
        for call in calls.values():
            call.done = True
            self._closed.append(_closed_row(boot, call.opened, _as_lost(call)))
        return len(calls)

    def drain(self) -> Batch:
        """Return the rows collected since the last call."""
        batch = Batch(closed=self._closed)
        for boot, call in self._fresh:
            if not call.done:
                batch.opened.append(_open_row(boot, call))
                call.stored = True
                self._heard.pop(call.opened.id, None)
        for ident, call in self._heard.items():
            if not call.done:
                batch.progressed.append((call.completion, (call.at - call.opened.at) // 1000, ident))
        batch.refused = [(second, code, count) for (second, code), count in self._refused.items()]
        self._fresh, self._heard, self._closed, self._refused = [], {}, [], {}
        return batch


def specimen_rows() -> dict[str, Row]:
    """One row of every kind that a store which is well must take."""
    call = Running(_UNOPENED)
    return {
        "opened": _open_row("", call),
        "progressed": (0, 0, ""),
        "closed": _closed_row("", _UNOPENED, _as_lost(call)),
        "refused": (0, "", 1),
    }


def _open_row(boot: str, call: Running) -> Row:
    o = call.opened
    # fmt: off
    return (
        o.id, boot, o.at, o.grant, _text(o.requested), o.stream, _text(o.label) or None,
        _known(o.price_input), _known(o.price_output), o.provider, _text(o.model), min(o.prompt_tokens, MOST),
        min(call.completion, MOST),
        "estimated", (call.at - o.at) // 1000,
    )
    # fmt: on


def _closed_row(boot: str, o: Opened, c: Closed) -> Row:
    opened_at = o.at or c.at - c.duration_us * 1000
    # fmt: off
    return (
        c.id, boot, opened_at, o.grant, _text(o.requested or c.model), o.stream, _text(o.label) or None, None, None,
        c.provider, _text(c.model), min(c.prompt_tokens, MOST), min(c.completion_tokens, MOST), c.basis,
        c.at, c.outcome, c.status, _text(c.code), min(c.cached_tokens, MOST), min(c.reasoning_tokens, MOST),
        min(c.cache_write_tokens, MOST), c.cost if 0 <= c.cost <= MOST else None,
        c.duration_us, _known(c.queue_us), _known(c.connect_us), _known(c.ttfb_us), _known(c.ttft_us),
        c.bytes_out, _attempts(c.attempts).decode(), c.price_source or None,
        _attempts(c.continued).decode() if c.continued else None, c.not_continued or None,
        _attempts(c.shares).decode() if c.shares else None,
    )
    # fmt: on


def _with_bare_id(record: Record) -> Record:
    """A record as this release writes it: the ids of earlier ones began with ``chatcmpl-``."""
    ident = getattr(record, "id", "")
    return replace(record, id=ident[9:]) if ident[:9] == EARLIER_PREFIX else record


def _text(value: str) -> str:
    """Return a text that a store can keep.  PostgreSQL has no NUL, and a NUL in a name must not take a call out of
    the accounts.
    """
    return value.replace("\0", "\ufffd") if "\0" in value else value


def _known(value: int) -> int | None:
    return value if value >= 0 else None


def _as_lost(call: Running) -> Closed:
    opened = call.opened
    return Closed(
        id=opened.id,
        at=call.at,
        outcome="lost",
        status=0,
        code="lost",
        provider=opened.provider,
        model=opened.model,
        prompt_tokens=opened.prompt_tokens,
        completion_tokens=call.completion,
        cached_tokens=0,
        reasoning_tokens=0,
        basis="estimated",
        cost=_lost_cost(call),
        duration_us=(call.at - opened.at) // 1000,
    )


def _lost_cost(call: Running) -> int:
    """nano-USD of a call of which only the estimate is known; -1 where its price is unknown."""
    opened = call.opened
    price = Price(_known(opened.price_input), _known(opened.price_output))
    priced = cost(Usage(prompt=opened.prompt_tokens, completion=call.completion), price)
    return -1 if priced is None else priced
