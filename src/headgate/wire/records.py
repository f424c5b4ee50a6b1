"""Journal records ⇄ bytes.

A segment file is a sequence of ``length (u32 LE) · crc32 (u32 LE) · payload`` and then zeros up to its preallocated
size. The payload is a MessagePack array (``model.Record``).  A length of 0 is the end of the written part.  Reading
stops at a record that is not sound.  If no sound record follows, it is a *torn tail*: the writer died inside a write,
or is still in it.  Otherwise the record is damaged, and ``next_sound`` finds the next one.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

import msgspec

from headgate.model import Record

HEADER = struct.Struct("<II")
MAX_RECORD = 64 << 10

# The beginning of every record: a length below MAX_RECORD + 64 KiB, its CRC, an array, a tag.  A look-ahead, because
# a record may begin inside bytes that look like one.
_BEGIN = re.compile(rb"(?s)(?=..[\x00\x01]\x00....(?:[\x91-\x9f]|\xdc..)[\x00-\x7f])")

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
_pack = HEADER.pack
_crc32 = zlib.crc32


def encode(record: Record) -> bytes:
    """Return one record as it is stored in a segment, with its header.

    Raises ValueError for a record that ``scan`` would not accept, because it would hide all later ones.
    """
    payload = _encode(record)
    if len(payload) > MAX_RECORD:
        raise ValueError(f"a record of {len(payload)} bytes is over the limit of {MAX_RECORD}")
    return _pack(len(payload), _crc32(payload)) + payload


def scan(buffer: bytes | memoryview, start: int = 0) -> Iterator[tuple[Record, int]]:
    """Yield the whole, sound records in ``buffer`` from ``start`` on, each with the offset after it.

    Stops silently at zeros, at an incomplete record and at a torn one.  The caller keeps the last offset and reads
    again when the file has grown.
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


def next_sound(buffer: bytes, start: int = 0) -> int | None:
    """Return the offset of the next sound record, at ``start`` or after it; None if ``buffer`` has none."""
    end = len(buffer)
    for match in _BEGIN.finditer(buffer, start):
        offset = match.start()
        length, crc = HEADER.unpack_from(buffer, offset)
        body = offset + HEADER.size
        if 0 < length <= MAX_RECORD and body + length <= end and _crc32(buffer[body : body + length]) == crc:
            return offset
    return None


def steps(buffer: bytes) -> int:
    """Return the number of records in ``buffer`` by their lengths, sound or not; at least 1."""
    count = offset = 0
    while offset + HEADER.size <= len(buffer):
        length = HEADER.unpack_from(buffer, offset)[0]
        if not 0 < length <= MAX_RECORD:
            return 1
        offset += HEADER.size + length
        count += 1
    return count if offset == len(buffer) else 1
