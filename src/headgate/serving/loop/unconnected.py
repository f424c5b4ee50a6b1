"""The transport of a protocol that has none yet."""

from __future__ import annotations

import asyncio


class _Unconnected(asyncio.Transport):
    """A transport that is closed."""

    def is_closing(self) -> bool:
        return True

    def abort(self) -> None:
        return None

    def close(self) -> None:
        return None

    def get_write_buffer_size(self) -> int:
        return 0


UNCONNECTED: asyncio.Transport = _Unconnected()
"""Until ``connection_made`` brings the one of the connection."""
