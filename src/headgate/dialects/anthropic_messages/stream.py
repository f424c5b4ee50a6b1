"""The pass-through: a Messages upstream's stream as a Messages client's.

Most events differ from the one before in nothing but their text.  Once one has been parsed, a pattern recognises the
following ones of its block, and their bytes are the client's.  Everything else is read by ``PassingSource``.  If the
stream breaks, another attempt continues it as deltas (``composed``), whichever API its provider speaks.
"""

from __future__ import annotations

import re
from functools import lru_cache

from headgate.dialects.anthropic_messages.events import usage_members
from headgate.dialects.anthropic_messages.face import MessagesFace
from headgate.dialects.anthropic_messages.passing_source import PassingSource, is_utf8
from headgate.dialects.base import Reply
from headgate.dialects.translation.composed import ComposedStream
from headgate.model import Usage

# The inside of a JSON string (RFC 8259 §7), without escaped surrogates: half of a pair would have to be joined
_STRING = rb'((?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}))+)'
# Anthropic pads its objects with blanks
_EVENT = (
    rb'event: content_block_delta\ndata: \{"type": ?"content_block_delta", ?"index": ?%d, ?'
    rb'"delta": ?\{"type": ?"%b", ?"%b": ?"' + _STRING + rb'" *\} *\} *\n\n'
)
_TYPES = {b"text": b"text_delta", b"thinking": b"thinking_delta", b"partial_json": b"input_json_delta"}


@lru_cache(maxsize=256)
def _pattern(index: int, member: bytes) -> re.Pattern[bytes]:
    return re.compile(_EVENT % (index, _TYPES[member], member))


class MessagesStream(ComposedStream):
    """Implements ``ports.StreamBridge``."""

    source: PassingSource
    face: MessagesFace

    def __init__(self, reply: Reply) -> None:
        super().__init__(PassingSource(reply), MessagesFace(reply), reply)
        self._stopped = False

    def feed(self, data: bytes) -> bytes:
        out: list[bytes] = []
        at, end = 0, len(data)
        source = self.source
        while at < end:
            if source.member and self._held.items is None and source.fresh:
                after = self._recognise(data, at)
                if after == end and not at:
                    return data
                if after > at:
                    out.append(data[at:after])
                    at = after
            cut = data.find(b"\n\n", at) + 2
            piece = data[at:cut] if cut > 1 else data[at:]
            at += len(piece)
            out.append(super().feed(piece))
            if self.done or self.error is not None:
                break
        return b"".join(out)

    def _recognise(self, data: bytes, at: int) -> int:
        """Count the events at ``at`` that differ from the last one in their text only; return where they end."""
        source, view = self.source, self.view
        match = _pattern(source.index, source.member).match
        kept = view.content_json if source.member == b"text" else None
        pieces = size = 0
        while (found := match(data, at)) is not None:
            text = found[1]
            if not text.isascii() and not is_utf8(text):
                break
            at = found.end()
            pieces += 1
            size += len(text)
            if kept is not None:
                kept += text
        view.pieces += pieces
        view.size += size
        produced = self._produced
        produced.pieces += pieces
        produced.size += size
        self.events = source.events = source.events + pieces
        if kept is not None and len(kept) > view.room:
            view.bound()
        return at

    def stop(self, reason: str) -> None:
        self._stopped = True
        super().stop(reason)

    def tail(self, usage: Usage, extra: bytes | None = None, trace: bytes | None = None) -> bytes:
        source = self.source
        if self.error is not None or self._stopped or not source.has_ended:
            return super().tail(usage, extra, trace)
        if source.reported is not None and usage == self.used.delivered:
            return self.face.end(source.end, extra, trace)
        return self.face.end({**source.end, "usage": usage_members(usage)}, extra, trace)
