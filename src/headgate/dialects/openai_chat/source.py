"""A chat upstream's answer as deltas, for clients of other APIs.

``ChatStream`` brings the bytes of any server into the one form of the contract.  This module reads that form.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from headgate.dialects.base import (
    Delta,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    Reply,
    TextDelta,
    ToolDelta,
    ToolStart,
)
from headgate.dialects.openai_chat.stream.stream import ChatStream
from headgate.errors import GatewayError
from headgate.model import Usage
from headgate.wire import codec, sse
from headgate.wire.codec import Object

_ENVELOPE = 64 << 10  # bytes that a chunk may have beside those of the upstream


class _Function(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct, gc=False):
    index: int = 0
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: tuple[_Call, ...] | None = None


class _Choice(Struct, gc=False):
    index: int = 0
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None
    native_finish_reason: str | None = None


class _Chunk(Struct, gc=False):
    choices: tuple[_Choice, ...] = ()


_read = msgspec.json.Decoder(_Chunk).decode


class ChatSource:
    """Implements ``base.Source``."""

    def __init__(self, reply: Reply) -> None:
        observed = msgspec.structs.replace(reply, include_usage=True, hold="", keep=False, takes_empty=True)
        self._stream: ChatStream = ChatStream(observed)
        self._decoder = sse.Decoder(2 * reply.max_event + _ENVELOPE)
        self.done = False
        self.error: GatewayError | None = None
        self.events = 0
        self.skipped = 0
        self.quiet = 0.0
        self.model = ""

    @property
    def reported(self) -> Usage | None:
        return self._stream.used.billed if self._stream.is_reported else None

    def feed(self, data: bytes) -> Sequence[Delta]:
        return self._take(self._stream.feed(data))

    def whole(self, body: bytes) -> Sequence[Delta]:
        return self._take(self._stream.whole(body))

    def close(self, clean: bool = True) -> Sequence[Delta]:
        return self._take(self._stream.close(clean))

    def _take(self, events: bytes) -> list[Delta]:
        if self.done or self.error is not None:
            return []
        stream = self._stream
        if stream.done:
            events += stream.tail(stream.used.billed)
        deltas: list[Delta] = []
        for event in self._decoder.feed(events):
            if event.data != b"[DONE]":
                for choice in _chunk(event.data).choices[:1]:
                    _add(choice, deltas)
        self.done, self.error = stream.done, stream.error
        self.events, self.skipped, self.quiet = stream.events, stream.skipped, stream.quiet
        self.model = stream.model
        return deltas


def _chunk(data: bytes) -> _Chunk:
    try:
        return _read(data)
    except msgspec.DecodeError:  # a member of another type, which counts as absent
        return _Chunk(tuple(map(_loosely, codec.as_objects((codec.as_object(data) or {}).get("choices")) or ())))


def _loosely(choice: Object) -> _Choice:
    delta = codec.as_object(choice.get("delta")) or {}
    calls = []
    for call in codec.as_objects(delta.get("tool_calls")) or ():
        function = codec.as_object(call.get("function")) or {}
        said = _Function(codec.as_text(function.get("name")), codec.as_text(function.get("arguments")))
        calls.append(_Call(codec.as_integer(call.get("index")) or 0, codec.as_text(call.get("id")), said))
    texts = {name: codec.as_text(delta.get(name)) for name in ("content", "reasoning_content", "reasoning", "refusal")}
    words = [codec.as_text(choice.get(name)) for name in ("finish_reason", "native_finish_reason")]
    return _Choice(codec.as_integer(choice.get("index")) or 0, _Delta(**texts, tool_calls=tuple(calls)), *words)


def _add(choice: _Choice, deltas: list[Delta]) -> None:
    delta = choice.delta
    thought = delta.reasoning_content or delta.reasoning
    if thought:
        deltas.append(ReasoningDelta(thought))
    if delta.content:
        deltas.append(TextDelta(delta.content))
    if delta.refusal:
        deltas.append(RefusalDelta(delta.refusal))
    for call in delta.tool_calls or ():
        function = call.function or _Function()
        if call.id is not None or function.name is not None:
            deltas.append(ToolStart(call.index, call.id or "", function.name or ""))
        if function.arguments:
            deltas.append(ToolDelta(call.index, function.arguments))
    if choice.finish_reason is not None:
        deltas.append(Finish(choice.finish_reason, choice.native_finish_reason or ""))
