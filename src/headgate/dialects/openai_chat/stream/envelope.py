"""The common members of a client's chunks: id, creation time, model, and usage if it was asked for.

Makes the chunks that are ours, and puts ours into an upstream's.  Owns what chunks that are not sent have said beside
their choices, until one that is takes it along.  Knows nothing of choices.
"""

from __future__ import annotations

from msgspec import Raw

from headgate.dialects.openai_chat.stream import chunks
from headgate.wire import codec, sse
from headgate.wire.codec import NULL, Object

_CHUNK = Raw(b'"chat.completion.chunk"')
_OURS = frozenset(("id", "object", "created", "model", "choices", "usage", "error"))
_NO_CHUNK = frozenset(("type", "event", "status", "code", "msg", "message"))  # members of events of another kind
_MOST_CARRIED = 32
_LARGEST_CARRIED = 64 << 10


class Envelope:
    """``model`` is the target's id until the upstream has given its own, which then stays.  ``carried`` holds top-level
    members of chunks that were not sent.
    """

    __slots__ = ("_created", "_id", "_include_usage", "_sent", "carried", "model", "model_is_theirs")

    def __init__(self, ident: str, created: int, model: str, include_usage: bool) -> None:
        self._id = codec.raw(ident)
        self._created = codec.raw(created)
        self._include_usage = include_usage
        self.model = codec.raw(model)
        self.model_is_theirs = False
        self.carried: Object = {}
        self._sent: Object = {}  # the last chunk of the upstream's that was sent

    def adopt_model(self, top: Object) -> None:
        raw = top.get("model")
        if raw is not None and codec.as_text(raw):
            self.model = raw
            self.model_is_theirs = True

    def carry(self, top: Object) -> None:
        """Keeps what a chunk that is not sent says beyond its choices, for the next one that is."""
        if top.keys() <= _OURS or ("choices" not in top and "object" not in top and top.keys() & _NO_CHUNK):
            return
        for key, value in top.items():
            small = len(value) <= _LARGEST_CARRIED and len(self.carried) < _MOST_CARRIED
            if small and key not in _OURS and value != NULL and self._sent.get(key) != value:
                self.carried.setdefault(key, value)

    def take_carried(self) -> Object:
        carried, self.carried = self.carried, {}
        return carried

    def chunk(self, members: chunks.Members) -> bytes:
        """The event of a chunk of our own making."""
        chunk: chunks.Members = {
            "id": self._id,
            "object": _CHUNK,
            "created": self._created,
            "model": self.model,
            **members,
        }
        if self._include_usage:
            chunk.setdefault("usage", NULL)
        data = codec.encode(chunk)
        return sse.encode(codec.join_halves(data) if codec.has_halves(data) else data)

    def respell(self, data: bytes, top: Object, choices: list[chunks.Members] | None) -> bytes:
        """An upstream's chunk as the client gets it: where nothing had to change, byte for byte but for what is ours.

        ``choices`` is None where they are as they came.
        """
        self._sent = top
        usage = top.get("usage")
        fits = usage is not None and usage == NULL if self._include_usage else usage is None
        ours = {"id": self._id, "created": self._created, "model": self.model}
        if choices is None and fits and top.get("object") == _CHUNK and codec.encode(top) != data:
            swapped = chunks.swap(data, top, ours)
            if swapped is not None:
                return swapped
        chunk: chunks.Members = {**top, **ours, "object": _CHUNK}
        if self._include_usage:
            chunk["usage"] = NULL
        elif usage is not None:
            del chunk["usage"]
        if choices is not None:
            chunk["choices"] = choices
            for key, value in self.take_carried().items():
                chunk.setdefault(key, value)
        return codec.encode(chunk)
