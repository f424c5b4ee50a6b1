"""Rows that the store refuses for good: found one by one, and set aside so that all others go on.

Owns ``STATE/unrecorded.jsonl`` (0600), a line per row, for the operator to look into.  The store's own faults are not
blamed on a row: if a statement refuses even a specimen, no row is set aside.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.control.ingest.receipts import Row, specimen_rows

# The drivers' errors for a value that they cannot store.  OverflowError is sqlite3's own, for an integer over 64 bits.
REFUSALS = (DataError, IntegrityError, InterfaceError, ProgrammingError, OverflowError, UnicodeError)
DRIVER_ERRORS = (DBAPIError, OverflowError, UnicodeError)
REFUSING_STATES = ("22", "23")  # PostgreSQL's classes "data exception" and "integrity constraint violation"
MAX_FILE = 16 << 20  # an upstream that sends nonsense all day must not fill the disk

Work = Sequence[tuple[str, str, list[Row]]]  # kind, statement, rows
log = structlog.get_logger("headgate.recorder")


def is_refusal(error: BaseException) -> bool:
    """Whether the store says this of a value, not of itself.  Few of asyncpg's errors have a class of their own, but
    all have PostgreSQL's code.
    """
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return False
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return isinstance(error, REFUSALS) or (state is not None and state[:2] in REFUSING_STATES)


class RejectedRows:
    """``count``: how many rows this life of control has set aside."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.count = 0

    async def sort_out(self, connection: AsyncConnection, work: Work) -> bool:
        """Takes the rows out of ``work`` that the store refuses.  Writes nothing to the store.  False where none was
        found or the store itself is at fault: then the batch stays as it is.
        """
        found = 0
        specimens = specimen_rows()
        for kind, statement, rows in work:
            if rows and await _refusal(connection, statement, specimens[kind]):
                return False
            bad = {}
            for index, row in enumerate(rows):
                if reason := await _refusal(connection, statement, row):
                    bad[index] = reason
                    self._keep(kind, row, reason)
            rows[:] = [row for index, row in enumerate(rows) if index not in bad]
            found += len(bad)
        return found > 0

    def _keep(self, kind: str, row: Row, reason: str) -> None:
        self.count += 1
        log.error("a record was set aside: the store refuses it", kind=kind, reason=reason, file=self._file.name)
        line = msgspec.json.encode({"kind": kind, "reason": reason, "row": row}) + b"\n"
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            if file.tell() + len(line) <= MAX_FILE:
                file.write(line)


async def _refusal(connection: AsyncConnection, statement: str, row: Row) -> str | None:
    """Why the store does not take this row; None where it does.  The rows are rolled back."""
    try:
        await connection.exec_driver_sql(statement, [row])
    except DRIVER_ERRORS as error:
        if not is_refusal(error):
            raise
        return str(getattr(error, "orig", None) or error)
    finally:
        await connection.rollback()
    return None
