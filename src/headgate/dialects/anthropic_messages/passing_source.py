"""A Messages upstream's events as a Messages client gets them: observed, and passed as they came.

Three things are changed.  The message's id is the gateway's own.  A signature carries its maker's name (``seals``).
And the head of a message waits until there is something to see, so that another attempt can still replace this one.
"""

from __future__ import annotations

from collections.abc import Sequence

from headgate.dialects.anthropic_messages import seals
from headgate.dialects.anthropic_messages.events import event, message_start
from headgate.dialects.anthropic_messages.source import MessagesSource
from headgate.dialects.base import Delta, Finish, PassedEvent, Reply
from headgate.dialects.translation.composed import kind_of, size_of
from headgate.wire import codec, sse
from headgate.wire.codec import Object

_MOST_WAITING = 64  # events before the first that shows something
_LARGEST_WAITING = 256 << 10  # bytes of all of them
_OTHER = "other"  # a visible part that only this API has
_WORDS = {"text_delta": b"text", "thinking_delta": b"thinking", "input_json_delta": b"partial_json"}
_QUIET = ("text", "thinking")  # blocks whose start shows nothing


class BlockEvent(PassedEvent, gc=False):
    """The begin or the end of a block.  ``opens``: its type; empty: it ends."""

    index: int = 0
    opens: str = ""


class PassingSource(MessagesSource):
    """Implements ``base.Source``.  ``end``: the members of the upstream's message_delta, which it does not return.

    ``index`` and ``member`` are those of the last delta, if later ones can be passed without being parsed.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.end: Object = {}
        self.index = -1
        self.member = b""
        self._family = reply.family
        self._start_event = b""
        self._waiting: list[PassedEvent] | None = []
        self._room = _LARGEST_WAITING

    @property
    def fresh(self) -> bool:
        """True if the next byte begins an event."""
        return self._decoder.fresh

    @property
    def has_ended(self) -> bool:
        """True if the upstream has given its stop reason."""
        return self._finish is not None and bool(self.end)

    def whole(self, body: bytes) -> Sequence[Delta]:
        deltas = super().whole(body)
        self._waiting = None
        return deltas

    def _read(self, kind: str, top: Object, data: bytes, deltas: list[Delta]) -> None:
        skipped, found = self.skipped, list[Delta]()
        super()._read(kind, top, data, found)
        self.skipped = skipped  # what the gateway does not know is passed all the same
        self.member = b""
        if self.error is not None:
            return
        if not is_utf8(data) or codec.as_object(data) is None:
            data = codec.repair(data)
        deltas += [delta for delta in found if isinstance(delta, Finish)]
        match kind:
            case "message_start":
                self._start_event = event({**top, "message": codec.raw(self._message_head(top))})
            case "message_delta":
                self._merge(top)
            case "message_stop":
                pass
            case "message":  # a whole one within a stream
                deltas[:] = found
                self._waiting = None
            case _:
                self._pass(self._passed(kind, top, data, found), deltas)

    def _message_head(self, top: Object) -> Object:
        message = codec.as_object(top.get("message")) or {}
        return {**message, "id": codec.raw(self._reply.ident), "model": codec.raw(self.model or self._reply.model)}

    def _merge(self, top: Object) -> None:
        """Add to ``end`` what another message_delta reports."""
        end = self.end
        for key, value in top.items():
            before, now = codec.as_object(end.get(key)), codec.as_object(value)
            end[key] = codec.raw({**before, **now}) if before and now is not None else value

    # ------------------------------------------------------------------------------- one event

    def _passed(self, kind: str, top: Object, data: bytes, found: list[Delta]) -> PassedEvent:
        seen = found[0] if found else None
        shown, size = ("", 0) if seen is None else (kind_of(seen), size_of(seen))
        index = codec.as_integer(top.get("index")) or 0
        if kind == "content_block_start":
            block = codec.as_object(top.get("content_block")) or {}
            opens = codec.as_text(block.get("type")) or _OTHER
            if seen is None and opens not in _QUIET:
                shown, size = _OTHER, len(data)
            member = seals.member_of(opens)
            if self._family not in seals.NATIVE and codec.as_text(block.get(member)):
                data = codec.encode({**top, "content_block": codec.raw(self._sealed(block, member))})
            return BlockEvent(_event(kind, data), shown, getattr(seen, "text", ""), size, index, opens)
        if kind == "content_block_stop":
            return BlockEvent(_event(kind, data), index=index)
        if kind == "content_block_delta":
            delta = codec.as_object(top.get("delta")) or {}
            word = codec.as_text(delta.get("type")) or ""
            if word == "signature_delta" and self._family not in seals.NATIVE:
                data = codec.encode({**top, "delta": codec.raw(self._sealed(delta, "signature"))})
            if word in _WORDS and seen is not None:
                self.index, self.member = index, _WORDS[word]
            elif word not in _WORDS and seen is None:
                shown, size = _OTHER, len(data)
        elif kind == "ping" and self._thinks:
            shown = "reasoning_content"  # the model thinks, and hides it: the client waits no longer for a sign
        return PassedEvent(_event(kind, data), shown, getattr(seen, "text", "") if shown == "content" else "", size)

    def _sealed(self, members: Object, name: str) -> Object:
        own = codec.as_text(members.get(name)) or ""
        return {**members, name: codec.raw(seals.sealed(own, self._family))}

    def _pass(self, passed: PassedEvent, deltas: list[Delta]) -> None:
        waiting = self._waiting
        if waiting is None:
            deltas.append(passed)
        elif passed.kind or len(waiting) == _MOST_WAITING or len(passed.event) > self._room:
            self._waiting = None
            reply = self._reply
            start = self._start_event or message_start(reply.ident, self.model or reply.model, reply.prompt_tokens)
            deltas += [PassedEvent(start), *waiting, passed]
        elif isinstance(passed, BlockEvent) or not passed.event.startswith(b"event: ping"):
            waiting.append(passed)
            self._room -= len(passed.event)


def _event(kind: str, data: bytes) -> bytes:
    return sse.encode(data, event=kind.encode() if kind.isprintable() else b"")  # a line break would end the field


def is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
