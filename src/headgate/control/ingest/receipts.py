"""Journal records → rows.  Pure: no I/O, no clock.

Owns what is known of running calls, per boot.  An Opened and a Closed that come in one batch make one row.  A call
that stays open gets a row without an outcome, so that a restarted control finds it again.  Applying the same records
twice gives the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec
from msgspec.structs import replace

from headgate.control.ledger.charges import MOST, billed_by
from headgate.control.store.receipt_columns import BLANK, CAPPED, JSON, KNOWN, RECEIPT, TEXT, ReceiptColumn
from headgate.model import Closed, Opened, Price, Progress, Record, Refused, Rotated, Usage
from headgate.policy.metering import cost
from headgate.wire.records import HEADER, scan

Row = tuple[Any, ...]

_encode = msgspec.json.Encoder().encode
EARLIER_PREFIX = "chatcmpl-"
_UNOPENED = Opened("", 0, "", "", False, 0)
EARLY = tuple(column for column in RECEIPT if column.early)
_CREATED, _REQUESTED = (EARLY.index(column) for column in EARLY if column.name in ("created_at", "requested"))


def _source(column: ReceiptColumn) -> str:
    """Where a running call has the value."""
    field = column.opened or column.closed
    return f"opened.{field}" if field in Opened.__struct_fields__ else field


# By position: `id` and `boot` are first in both rows
_of_running = attrgetter(*(_source(column) for column in EARLY[2:]))


def _getter(columns: Iterable[ReceiptColumn]) -> Callable[[Record], Row]:
    """Return the values of columns that come from one record; None of columns that are computed."""
    fields = [column.opened or column.closed for column in columns]
    if not fields[0]:
        return lambda record: (None,) * len(fields)
    get = attrgetter(*fields)
    return get if len(fields) > 1 else lambda record: (get(record),)


# Behind `id` and `boot`, which of the two records has the columns that follow each other, and their getter
_ENDED = [
    (of_opened, _getter(columns))
    for (of_opened, _of_closed), columns in groupby(
        RECEIPT[2:], lambda column: (bool(column.opened), bool(column.closed))
    )
]
_OPERATOR_COST, _BILLED = (index for index, column in enumerate(RECEIPT) if column.name in ("operator_cost", "billed"))
_GONE = tuple(index for index, column in enumerate(RECEIPT) if column.until_closed)


class _Bounds:
    """What a store can hold: PostgreSQL has no NUL in its texts, and the integers have 64 bits."""

    def __init__(self, columns: Sequence[ReceiptColumn]) -> None:
        self._texts, self._counts, self._known, self._blanks, self._json = (
            tuple(index for index, column in enumerate(columns) if kind in column.write)
            for kind in (TEXT, CAPPED, KNOWN, BLANK, JSON)
        )

    def __call__(self, row: list[Any]) -> Row:
        # No function per value: this is done for every call, and half of what it costs would be the calls of those
        for index in self._texts:
            if "\0" in row[index]:
                row[index] = row[index].replace("\0", "\ufffd")
        for index in self._counts:
            if row[index] > MOST:
                row[index] = MOST
        for index in self._known:
            if not 0 <= row[index] <= MOST:
                row[index] = None
        for index in self._blanks:
            if not row[index]:
                row[index] = None
        for index in self._json:
            if row[index] is not None:
                row[index] = _encode(row[index]).decode()
        return tuple(row)


_early_bounds, _bounds = _Bounds(EARLY), _Bounds(RECEIPT)


class Running:
    """A call that has been opened and not closed.  ``stored``: it has a row."""

    __slots__ = ("at", "completion_tokens", "done", "opened", "stored")
    basis = "estimated"

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.completion_tokens = 0
        self.at = opened.at  # when it was last heard of
        self.done = False
        self.stored = False

    @property
    def duration_us(self) -> int:
        return (self.at - self.opened.at) // 1000


@dataclass(slots=True)
class Batch:
    """Rows to be written, in the order of the tables' columns (see ``recorder.Statements``)."""

    opened: list[Row] = field(default_factory=list)
    progressed: list[Row] = field(default_factory=list)  # (completion tokens, µs since opened, nano-USD held, id)
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
        call.completion_tokens = completion
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
                if record.hold < 0:
                    record.hold = max(0, _lost_cost(call))
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
                    known.completion_tokens = record.completion_tokens
                    known.at = record.at
                    known.opened.hold = max(known.opened.hold, min(record.hold, MOST))
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
                batch.progressed.append((call.completion_tokens, call.duration_us, call.opened.hold, ident))
        batch.refused = [(second, code, count) for (second, code), count in self._refused.items()]
        self._fresh, self._heard, self._closed, self._refused = [], {}, [], {}
        return batch


def specimen_rows() -> dict[str, Row]:
    """One row of every kind that a store which is well must take."""
    call = Running(_UNOPENED)
    return {
        "opened": _open_row("", call),
        "progressed": (0, 0, 0, ""),
        "closed": _closed_row("", _UNOPENED, _as_lost(call)),
        "refused": (0, "", 1),
    }


def _open_row(boot: str, call: Running) -> Row:
    return _early_bounds([call.opened.id, boot, *_of_running(call)])


def _closed_row(boot: str, opened: Opened, closed: Closed) -> Row:
    row: list[Any] = [closed.id, boot]
    for of_opened, values in _ENDED:
        row += values(opened if of_opened else closed)
    if not opened.at:
        row[_CREATED] = closed.at - closed.duration_us * 1000
    if not opened.requested:
        row[_REQUESTED] = closed.model
    for index in _GONE:
        row[index] = -1
    if closed.attempts and (billed := billed_by(closed)) is not None:
        row[_OPERATOR_COST], row[_BILLED] = sum(billed.values()), _encode(billed).decode()
    return _bounds(row)


def _with_bare_id(record: Record) -> Record:
    """A record as this release writes it: the ids of earlier ones began with ``chatcmpl-``."""
    ident = getattr(record, "id", "")
    return replace(record, id=ident[9:]) if ident[:9] == EARLIER_PREFIX else record


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
        completion_tokens=call.completion_tokens,
        cached_tokens=0,
        reasoning_tokens=0,
        basis=call.basis,
        cost=_lost_cost(call),
        duration_us=call.duration_us,
    )


def _lost_cost(call: Running) -> int:
    """nano-USD of a call of which only the estimate is known; -1 where its price is unknown."""
    opened = call.opened
    price = Price(_rate(opened.price_input), _rate(opened.price_output))
    priced = cost(Usage(prompt=opened.prompt_tokens, completion=call.completion_tokens), price)
    return -1 if priced is None else priced


def _rate(recorded: int) -> int | None:
    return None if recorded < 0 else recorded
