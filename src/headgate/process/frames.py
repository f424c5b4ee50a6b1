"""Messages between the gateway's own processes: a frame is ``length (u32 LE) · MessagePack``."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

LENGTH = struct.Struct("<I")
LONGEST = (1 << 32) - 1  # that the length can say
M = TypeVar("M")

_encode = msgspec.msgpack.Encoder().encode


def frame(message: msgspec.Struct, limit: int = LONGEST) -> bytes:
    """Return one message as it goes over a socket.  Raises ValueError if it has more than ``limit`` bytes."""
    payload = _encode(message)
    if len(payload) > limit:
        raise ValueError(f"a {type(message).__name__} frame of {len(payload)} bytes is over the limit of {limit}")
    return LENGTH.pack(len(payload)) + payload


class Frames(Generic[M]):
    """Bytes in, messages out."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[M], limit: int = LONGEST) -> None:
        self._decoder = decoder
        self._limit = limit
        self._buffer = bytearray()

    @property
    def wanted(self) -> int:
        """The bytes that are known to be missing from the next message: those of its length, then the others."""
        buffered = len(self._buffer)
        if buffered < LENGTH.size:
            return LENGTH.size - buffered
        return LENGTH.size + int(LENGTH.unpack_from(self._buffer)[0]) - buffered

    def feed(self, data: bytes) -> Iterator[M]:
        """The messages that ``data`` completes.  Raises ValueError on a frame over the limit, msgspec's errors on
        garbage.
        """
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            if length > self._limit:
                raise ValueError(f"frame of {length} bytes is over the limit of {self._limit}")
            end = LENGTH.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[LENGTH.size : end])
            del self._buffer[:end]
            yield self._decoder.decode(payload)
