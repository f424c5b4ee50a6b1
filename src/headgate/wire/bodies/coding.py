"""Content codings (RFC 9110 §8.4) undone: gzip, deflate, br and zstd, within bounds.

The gateway asks for ``identity``, but some servers and proxies compress anyway.  Others
announce a coding and do not use it.  The first bytes therefore decide; the header's name counts only if they are not
conclusive.  A few bytes may expand a thousandfold, so ``read`` never returns much more than requested.  Owns no I/O.
"""

from __future__ import annotations

import importlib
import re
import zlib
from typing import Any, Protocol

STEP = 64 << 10
_MOST_LAYERS = 3
_NAMES = {
    "gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate", "x-deflate": "deflate", "br": "br", "zstd": "zstd",
    "x-zstd": "zstd",
}  # fmt: skip
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPED = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # a skippable frame (RFC 8878 §3.1.2) may come first
_MAGIC = 4
_HEAD = 16
# How JSON, events and web pages begin, with nothing binary in the first bytes.  A brotli body may begin with a "[" or a
# "{" too, but not with sixteen characters of text.
_TEXT = re.compile(rb"(?=[\t\r\n -~]*\Z)[ \t\r\n]*(?:[{\[<:]|data|even|id:|retr|erro|\Z)")
_BOM = b"\xef\xbb\xbf"
_LARGEST_WINDOW = 23  # log2 of bytes: RFC 9659 §3 for zstd as a content coding


class CodingError(ValueError):
    """A body that does not match its coding, or that ends too early.  The message is for people."""


class TruncatedError(CodingError):
    """A body that ends in the middle of its compressed data."""


class TooLargeError(CodingError):
    """A body that exceeds its limit when decoded."""


class _Engine(Protocol):
    """One compressed member.  ``read`` takes all of ``data`` and returns about ``most`` bytes at most.  Call it
    again, without data, for the rest.
    """

    ended: bool
    unused: bytes

    def read(self, data: bytes, most: int) -> bytes: ...


class _Inflate:
    ended = False
    unused = b""

    def __init__(self, bits: int) -> None:
        self._inner = zlib.decompressobj(bits)
        self._tail = b""

    def read(self, data: bytes, most: int) -> bytes:
        out = self._inner.decompress(self._tail + data if self._tail else data, most)
        self._tail = self._inner.unconsumed_tail
        self.ended = self._inner.eof
        self.unused = self._inner.unused_data
        return out


class _Brotli:
    ended = False
    unused = b""

    def __init__(self) -> None:
        self._inner: Any = importlib.import_module("brotli").Decompressor()
        self._waiting = b""

    def read(self, data: bytes, most: int) -> bytes:
        inner = self._inner
        self._waiting += data
        if inner.is_finished():
            return b""
        given = b""
        if inner.can_accept_more_data():
            given, self._waiting = self._waiting, b""
        out: bytes = inner.process(given, output_buffer_limit=most)
        self.ended = inner.is_finished()
        return out


class _Zstd:
    ended = False
    unused = b""

    def __init__(self) -> None:
        try:
            module: Any = importlib.import_module("compression.zstd")  # Python 3.14
        except ImportError:
            module = importlib.import_module("backports.zstd")
        largest = {module.DecompressionParameter.window_log_max: _LARGEST_WINDOW}
        self._inner: Any = module.ZstdDecompressor(options=largest)

    def read(self, data: bytes, most: int) -> bytes:
        out: bytes = self._inner.decompress(data, most)
        self.ended = self._inner.eof
        if self.ended:
            self.unused = self._inner.unused_data
        return out


def _engine(name: str, head: bytes) -> _Engine | None:
    """Return the decoder for a body that begins with ``head``; None if it is not compressed."""
    if head.startswith(_GZIP):
        return _Inflate(31)
    if head.startswith(_ZSTD) or _ZSTD_SKIPPED.match(head):
        return _Zstd()
    if _TEXT.match(head.removeprefix(_BOM)):
        return None
    if name == "br":
        return _Brotli()
    if name == "zstd":
        return _Zstd()
    if len(head) > 1 and head[0] & 15 == 8 and (head[0] << 8 | head[1]) % 31 == 0:
        return _Inflate(15)  # zlib's header (RFC 1950 §2.2), also where the name is gzip
    return _Inflate(31 if name == "gzip" else -15)  # "deflate" without that header: as some servers understood it


class _Layer:
    """One coding of a body.  ``feed``, then ``read`` until it gives nothing."""

    __slots__ = ("_begun", "_ended", "_engine", "_input", "_more", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._engine: _Engine | None = None
        self._begun = False  # the first bytes have been checked
        self._ended = False
        self._input = b""
        self._more = False  # the engine may hold output back

    def feed(self, data: bytes) -> None:
        self._input += data

    def read(self, most: int, last: bool) -> bytes:
        if not self._begun:
            if not self._input or (len(self._input) < _HEAD and not last):
                return b""
            self._begun = True
            self._engine = _engine(self._name, self._input[:_HEAD])
        engine = self._engine
        if engine is None:
            data, self._input = self._input[:most], self._input[most:]
            return data
        while self._input or self._more:
            data, self._input = self._input, b""
            if self._ended:
                if not self._next_member(data, last):
                    return b""
                assert self._engine is not None
                engine, data, self._input = self._engine, self._input, b""
            try:
                out = engine.read(data, most)
            except ImportError as error:
                raise CodingError(f"is compressed with {self._name}, which this installation cannot decode") from error
            except Exception as error:  # each library has an error class of its own
                raise CodingError(f"is no valid {self._name}") from error
            self._more = bool(out)
            if engine.ended:
                self._ended = True
                self._more = False
                self._input = engine.unused
            if out:
                return out
        return b""

    def _next_member(self, data: bytes, last: bool) -> bool:
        """gzip and zstd bodies may have several members; other bytes after the end are padding."""
        data = data.lstrip(b"\0")
        if self._name not in ("gzip", "zstd") or (len(data) < _MAGIC and not last):
            self._input = data if self._name in ("gzip", "zstd") else b""
            return False
        self._input = data
        if not (data.startswith((_GZIP, _ZSTD)) or _ZSTD_SKIPPED.match(data)):
            self._input = b""
            return False
        self._engine = _engine(self._name, data[:_HEAD])
        self._ended = False
        return True

    @property
    def complete(self) -> bool:
        return self._engine is None or self._ended


class BodyDecoder:
    """All codings of a body.  ``feed`` it the bytes, ``read`` until it returns none, ``finish`` at the end."""

    __slots__ = ("_last", "_layers")

    def __init__(self, names: list[str]) -> None:
        self._layers = [_Layer(name) for name in reversed(names)]  # listed in the order in which they were applied
        self._last = False

    def feed(self, data: bytes) -> None:
        self._layers[0].feed(data)

    def read(self, most: int = STEP) -> bytes:
        """Return decoded bytes, about ``most`` of them.  Raises CodingError."""
        return self._read(len(self._layers) - 1, most)

    def _read(self, at: int, most: int) -> bytes:
        layer = self._layers[at]
        while True:
            out = layer.read(most, self._last)
            if out or not at:
                return out
            more = self._read(at - 1, STEP)
            if not more:
                return layer.read(most, self._last)
            layer.feed(more)

    def finish(self) -> None:
        """End the body: the bytes held to recognise it may be read now."""
        self._last = True

    def check(self) -> None:
        """Raise CodingError if the body ended before its coding.  Call it when ``read`` returns none any more."""
        if not all(layer.complete for layer in self._layers):
            raise TruncatedError("ends in the middle of its compressed data")


def decoder(field: bytes, head: bytes = b"") -> BodyDecoder | None:
    """Return the decoder for a ``Content-Encoding`` field; None if no decoding is needed.

    ``head`` is the beginning of the body, if known: some servers compress without announcing it.
    Unknown names (``utf-8``, ``aws-chunked``, ``none``) are no coding.  Raises CodingError for too many of them.
    """
    words = (word.strip().lower() for word in field.decode("latin-1").split(","))
    names = [_NAMES[word] for word in words if word in _NAMES]
    if len(names) > _MOST_LAYERS:
        raise CodingError(f"is compressed {len(names)} times over")
    if not names:
        names = ["gzip"] if head.startswith(_GZIP) else ["zstd"] if head.startswith(_ZSTD) else []
    return BodyDecoder(names) if names else None


def decode(field: bytes, body: bytes, most: int) -> bytes:
    """Return a whole body without its codings.  Raises CodingError, also if it exceeds ``most`` bytes."""
    undo = decoder(field, body[:_MAGIC])
    if undo is None:
        return body
    undo.feed(body)
    undo.finish()
    pieces: list[bytes] = []
    size = 0
    while data := undo.read():
        pieces.append(data)
        size += len(data)
        if size > most:
            raise TooLargeError(f"is over {most} bytes when it is decompressed")
    undo.check()
    return b"".join(pieces)
