"""Content codings: undone whole and in any pieces, bounded, and truthful about what is broken."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
import zlib
from collections.abc import Callable

import brotli
import pytest

from headgate.wire.bodies.coding import STEP, CodingError, TooLargeError, TruncatedError, decode, decoder

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

JSON = b'{"choices":[{"message":{"content":"' + bytes(random.Random(1).choices(b"abcdefgh ", k=20_000)) + b'"}}]}'
EVENTS = b'data: {"choices":[]}\n\n' * 40
BODIES = [b"{}", JSON, EVENTS, b"\n\n" + EVENTS, b"\xef\xbb\xbf" + JSON, b"plain words", b"<html>"]
MANY = 10_000_000


def raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    return engine.compress(data) + engine.flush()


CODINGS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "gzip": (b"gzip", gzip.compress),
    "x-gzip": (b"X-GZip", gzip.compress),
    "deflate": (b"deflate", zlib.compress),
    "deflate without its header": (b"Deflate", raw_deflate),
    "gzip that is zlib's": (b"gzip", zlib.compress),
    "deflate that is gzip": (b"deflate", gzip.compress),
    "br": (b"br", brotli.compress),
    "zstd": (b"zstd", zstd.compress),
}
KINDS = list(CODINGS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:8]))
def test_a_body_comes_back_whole_and_in_any_pieces(kind: str, body: bytes) -> None:
    name, compress = CODINGS[kind]
    packed = compress(body)
    assert decode(name, packed, MANY) == body
    for size in (1, 7, 1000):
        undo = decoder(name)
        assert undo is not None
        found: list[bytes] = []
        for at in range(0, len(packed), size):
            undo.feed(packed[at : at + size])
            while piece := undo.read():
                found.append(piece)
        undo.finish()
        while piece := undo.read():
            found.append(piece)
        undo.check()
        assert b"".join(found) == body


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "br"])  # brotli's module flushes whole blocks too
def test_an_event_is_read_as_soon_as_its_bytes_are_here(kind: str) -> None:
    """A server that compresses a stream flushes behind each event."""
    engine: object
    name, _ = CODINGS[kind]
    if kind == "zstd":
        packer = zstd.ZstdCompressor()
        pieces = [packer.compress(EVENTS[:22], mode=zstd.ZstdCompressor.FLUSH_BLOCK) for _ in range(3)]
    else:
        bits = {"deflate": 15, "gzip that is zlib's": 15, "deflate without its header": -15}.get(kind, 31)
        engine = zlib.compressobj(9, zlib.DEFLATED, bits)
        pieces = [engine.compress(EVENTS[:22]) + engine.flush(zlib.Z_SYNC_FLUSH) for _ in range(3)]
    undo = decoder(name)
    assert undo is not None
    for piece in pieces:
        undo.feed(piece)
        assert undo.read() == EVENTS[:22]
        assert undo.read() == b""


@pytest.mark.parametrize("inner", KINDS)
@pytest.mark.parametrize("outer", KINDS)
def test_several_codings_are_undone_from_the_last(inner: str, outer: str) -> None:
    (first, pack), (second, wrap) = CODINGS[inner], CODINGS[outer]
    assert decode(first + b" ,\t" + second, wrap(pack(JSON)), MANY) == JSON
    assert decode(first + b"," + second, wrap(JSON), MANY) == JSON  # the field names one too many


@pytest.mark.parametrize("field", [b"", b"identity", b"Identity, ", b"none", b"utf-8", b"aws-chunked", b"gzip", b"br"])
@pytest.mark.parametrize("body", [b"", b"{}", JSON, EVENTS, b"  \n" + JSON])
def test_uncompressed_body_passes_despite_the_field(field: bytes, body: bytes) -> None:
    assert decode(field, body, MANY) == body


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
def test_a_compressed_body_is_known_without_a_field(compress: Callable[[bytes], bytes]) -> None:
    assert decode(b"", compress(JSON), MANY) == JSON
    assert decode(b"identity", compress(JSON), MANY) == JSON


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
@pytest.mark.parametrize("behind", [b"", b"\0" * 9, b"\r\n", b"rubbish behind the end"])
def test_members_are_joined_and_padding_is_dropped(compress: Callable[[bytes], bytes], behind: bytes) -> None:
    field = b"gzip" if compress is gzip.compress else b"zstd"
    assert decode(field, compress(JSON[:500]) + compress(JSON[500:]) + behind, MANY) == JSON


@pytest.mark.parametrize("kind", KINDS)
def test_what_ends_too_early_is_a_cut(kind: str) -> None:
    name, compress = CODINGS[kind]
    packed = compress(JSON)
    for left in (len(packed) - 1, len(packed) // 2, 12):
        with pytest.raises(TruncatedError):
            decode(name, packed[:left], MANY)


@pytest.mark.parametrize("name", [b"gzip", b"deflate", b"br", b"zstd"])
def test_what_is_broken_says_so_without_its_bytes(name: bytes) -> None:
    for rubbish in (b"\x00\x01\x02\x03" * 30, b"\x1f\x8b\x08\xff" + b"\xee" * 60, b"\x28\xb5\x2f\xfd" + b"\xff" * 60):
        with pytest.raises(CodingError) as caught:
            decode(name, rubbish, MANY)
        assert str(caught.value).isascii() and len(str(caught.value)) < 80


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_bytes_that_expand_meet_the_bound(kind: str) -> None:
    """The bound is on what is held, too: no step gives much more than it is asked for."""
    name, compress = CODINGS[kind]
    bomb = compress(b"\0" * 20_000_000)
    assert len(bomb) < 100_000
    with pytest.raises(TooLargeError):
        decode(name, bomb, 1 << 20)
    undo = decoder(name)
    assert undo is not None
    undo.feed(bomb)
    assert all(len(undo.read()) <= 2 * STEP for _ in range(5))


def test_codings_upon_codings_are_refused() -> None:
    with pytest.raises(CodingError):
        decoder(b",".join([b"gzip"] * 1000))


def test_a_window_larger_than_a_coding_may_have_is_refused() -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    packed = packer.compress(b"a" * 100, mode=zstd.ZstdCompressor.FLUSH_BLOCK) + packer.flush()
    with pytest.raises(CodingError):
        decode(b"zstd", packed, MANY)


def test_the_data_process_starts_without_the_decoders() -> None:
    """They are imported when the first answer needs them: 20 ms and 3 MB."""
    asked = "import sys, headgate.data; print([m for m in sys.modules if 'brotli' in m or 'zstd' in m])"
    ran = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "[]", ran.stderr[-500:]
