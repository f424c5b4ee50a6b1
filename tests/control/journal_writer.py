"""A journal writer as the data process is one: its own file, locked, preallocated; and a control process to start and
kill.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from headgate.control.process import new_event_loop
from headgate.model import AttemptRecord, Closed, Opened, Progress, Record
from headgate.wire.records import encode

T = TypeVar("T")
T0 = 1_750_000_000_000_000_000
SECOND = 1_000_000_000


class Writer:
    """Appends records to ``<boot>-<n>`` and holds the lock until ``die``."""

    def __init__(self, folder: Path, boot: str = "w0-b0", number: int = 0, size: int = 1 << 20) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{boot}-{number:06d}"
        unborn = folder / f".{self.path.name}"
        self.fd = os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(self.fd, size)
        unborn.rename(self.path)
        self.offset = 0

    def write(self, *records: Record) -> None:
        self.write_bytes(b"".join(map(encode, records)))

    def write_bytes(self, data: bytes) -> None:
        os.pwrite(self.fd, data, self.offset)
        self.offset += len(data)

    def die(self) -> None:
        os.close(self.fd)

    @property
    def there(self) -> bool:
        """Nobody has deleted it."""
        return self.path.exists()


def run(main: Coroutine[Any, Any, T]) -> T:
    """On the loop that the control process runs on."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)


def ident(number: int) -> str:
    """As serving/receipt.Ids makes them, of the instant that ``opened`` gives the call."""
    return f"{(T0 + number) // 1_000_000:011x}{number:013x}"


def opened(number: int, **changes: Any) -> Opened:
    values: dict[str, Any] = {
        "id": ident(number),
        "at": T0 + number,
        "grant": "g1",
        "requested": "headgate/chat",
        "stream": True,
        "prompt_tokens": 100,
        "price_input": 1 * 10**9,
        "price_output": 2 * 10**9,
        "provider": "up-a",
        "model": "big",
    }
    return Opened(**(values | changes))


def progress(number: int, tokens: int) -> Progress:
    return Progress(ident(number), T0 + number + 5 * SECOND, tokens)


def closed(number: int, **changes: Any) -> Closed:
    values: dict[str, Any] = {
        "id": ident(number),
        "at": T0 + number + SECOND,
        "outcome": "delivered",
        "status": 200,
        "code": "",
        "provider": "up-a",
        "model": "big-0613",
        "prompt_tokens": 90,
        "completion_tokens": 10,
        "cached_tokens": 4,
        "reasoning_tokens": 0,
        "basis": "provider",
        "cost": 110_000,
        "duration_us": 1_000_000,
        "ttft_us": 250_000,
        "attempts": (AttemptRecord("up-a", "big", "up-a/0", 200, "", 10, 999_000),),
    }
    return Closed(**(values | changes))


def query(database: Path, sql: str, *parameters: object) -> list[dict[str, Any]]:
    """Rows as another program sees them; changes are made."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql, parameters)]
