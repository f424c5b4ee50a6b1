"""Journal records ⇄ bytes.

A segment file is a sequence of ``length (u32 LE) · crc32 (u32 LE) · payload`` and then zeros up to its preallocated
size. The payload is a MessagePack array (``model.Record``).  A length of 0 is the end of what was written; a record
whose length runs past the end or whose CRC does not fit is a *torn tail* (the writer died inside a write): reading
stops there.  Nothing after a torn record can be trusted, and nothing was: a new process writes to a new file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import msgspec

from headgate.model import Record

HEADER = struct.Struct("<II")
MAX_RECORD = 64 << 10

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
_pack = HEADER.pack
_crc32 = zlib.crc32


def encode(record: Record) -> bytes:
    """One record as it stands in a segment, header included.

    Raises ValueError for one that ``scan`` would not take: it would hide all that come after it.
    """
    payload = _encode(record)
    if len(payload) > MAX_RECORD:
        raise ValueError(f"a record of {len(payload)} bytes is over the limit of {MAX_RECORD}")
    return _pack(len(payload), _crc32(payload)) + payload


def scan(buffer: bytes | memoryview, start: int = 0) -> Iterator[tuple[Record, int]]:
    """The whole, sound records in ``buffer`` from ``start`` on, each with the offset behind it.

    Stops silently at zeros, at an incomplete record and at a torn one: the caller keeps the last offset and looks again
    when the file has grown.
    """
    view = memoryview(buffer)
    end = len(view)
    offset = start
    while offset + HEADER.size <= end:
        length, crc = HEADER.unpack_from(view, offset)
        body = offset + HEADER.size
        if not 0 < length <= MAX_RECORD or body + length > end:
            return
        payload = view[body : body + length]
        if _crc32(payload) != crc:
            return
        offset = body + length
        yield _decoder.decode(payload), offset
