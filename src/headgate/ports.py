"""The Protocols that stand between packages: who needs what, said once, without saying who gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from headgate.errors import GatewayError
from headgate.model import Record, Snapshot, Usage


class Clock(Protocol):
    """Time as an argument.  ``now`` is monotonic seconds, coarse (100 ms) where the loop's wheel gives it."""

    now: float


class Directory(Protocol):
    """Where the current Snapshot and the providers' keys are found."""

    snapshot: Snapshot
    secrets: Mapping[str, str]


class Journal(Protocol):
    """The outbox.  ``write`` returns once the record is with the kernel: a ``kill -9`` does not lose it."""

    @property
    def accepting(self) -> bool:
        """False while room for the closes of running calls is short: new calls are then refused."""

    def write(self, record: Record) -> None: ...


class StreamBridge(Protocol):
    """An upstream's stream in, the client's stream out.  Pure; see ``dialects.bridge``.

    ``feed`` and ``close`` return whole SSE events for the client, never the terminal one: that is ``tail()``, sent after
    the receipt is written.  Nothing is returned before the client can see something (``visible``): until then the
    attempt can still be replaced.
    """

    visible: bool
    done: bool
    error: GatewayError | None
    usage: Usage
    progress: int

    def feed(self, data: bytes) -> bytes:
        """Bytes as they came from the upstream's body, cut anywhere."""

    def close(self) -> bytes:
        """The upstream's body has ended: completes what is complete, sets ``error`` on what was cut."""

    def tail(self) -> bytes:
        """What ends the client's stream: the last chunks and ``[DONE]``, or the error event."""
