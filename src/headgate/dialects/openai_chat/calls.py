"""Tool calls as the client gets them: one index, one id, one type and one name each."""

from __future__ import annotations

import hashlib

from msgspec import Raw

from headgate.errors import UPSTREAM_GARBAGE, GatewayError
from headgate.wire import codec
from headgate.wire.codec import NULL, Object

MOST_CALLS = 1024  # of one choice: a request may offer 128 tools
_FUNCTION = Raw(b'"function"')


class ToolCalls:
    """The tool calls of one choice, as far as their deltas have come.  More than 1,024 raise GatewayError.

    Fills what a delta lacks (``index``; ``id`` and ``type`` of a call's first) and takes out what it repeats, since the
    clients' accumulators join repeated strings.  A different id with a name at an index already in use is another call:
    servers exist that give every parallel call the index 0.
    """

    __slots__ = ("_at", "_by_id", "_seed", "_size", "calls")

    def __init__(self, seed: str) -> None:
        self.calls: list[tuple[str, str]] = []  # (id, name) by the index that the client sees
        self._at: dict[int, int] = {}  # the upstream's index → ours
        self._by_id: dict[str, int] = {}
        self._seed = seed
        self._size = 0

    def take_size(self) -> int:
        """Bytes of names and arguments since this was last asked."""
        size, self._size = self._size, 0
        return size

    def normalise(self, raw: Raw) -> Raw | None:
        """The ``tool_calls`` of one delta as the client gets them; None where nothing had to change."""
        deltas = codec.as_objects(raw)
        if not deltas:
            return None
        changed = False
        for delta in deltas:
            changed = self.normalise_one(delta) or changed
        return codec.raw(deltas) if changed else None

    def normalise_one(self, delta: Object) -> bool:
        ident = codec.as_text(delta.get("id")) or ""
        function = codec.as_object(delta.get("function"))
        name = codec.as_text(function.get("name")) or "" if function else ""
        arguments = function.get("arguments") if function else None
        whole = arguments is not None and memoryview(arguments)[0] in b"{["
        if function and arguments is not None and whole:  # an object where the clients read a string
            function["arguments"] = codec.raw(bytes(arguments).decode())
            delta["function"] = codec.raw(function)
        if function and "arguments" in function:
            self._size += len(bytes(function["arguments"])) - 2
        theirs = codec.as_integer(delta.get("index"))
        index = self._index(theirs, ident, name)
        changed = theirs != index
        if changed:
            delta["index"] = codec.raw(index)
        changed = changed or whole
        if index == len(self.calls):
            return self._open(delta, function, ident, name, index) or changed
        return self._continue(delta, function, index) or changed

    def _index(self, theirs: int | None, ident: str, name: str) -> int:
        """Which of our calls a delta belongs to; ``len(self.calls)`` for a new one."""
        new = len(self.calls)
        if ident and ident in self._by_id:
            return self._by_id[ident]
        if theirs is None:
            return new if ident or name or not new else new - 1
        ours = self._at.get(theirs)
        if ours is None or (ident and name and self.calls[ours][0] != ident):
            self._at[theirs] = new
            return new
        return ours

    def _open(self, delta: Object, function: Object | None, ident: str, name: str, index: int) -> bool:
        changed = False
        if index >= MOST_CALLS:
            raise GatewayError(UPSTREAM_GARBAGE, f"The upstream made more than {MOST_CALLS} tool calls in one answer.")
        if not ident:
            ident = "call_" + hashlib.blake2b(f"{self._seed}/{index}".encode(), digest_size=12).hexdigest()
            delta["id"] = codec.raw(ident)
            changed = True
        if codec.is_null(delta.get("type")):
            delta["type"] = _FUNCTION
            changed = True
        if function is not None and codec.is_null(function.get("arguments")):
            function["arguments"] = codec.EMPTY_TEXT
            delta["function"] = codec.raw(function)
            changed = True
        self._size += len(name)
        self.calls.append((ident, name))
        self._by_id[ident] = index
        return changed

    def _continue(self, delta: Object, function: Object | None, index: int) -> bool:
        changed = delta.pop("id", None) is not None
        if "type" in delta and delta["type"] == NULL:
            del delta["type"]
            changed = True
        if function is None:
            return changed
        name = codec.as_text(function["name"]) if "name" in function else None
        stale = [key for key, value in function.items() if value == NULL]
        if "name" in function and (not name or name == self.calls[index][1]):
            stale.append("name")
        for key in stale:
            function.pop(key, None)
        if stale:
            delta["function"] = codec.raw(function)
        return changed or bool(stale)


def complete_calls(message: Object, raw: Raw, seed: str) -> bool:
    """Fills ``id``, ``type`` and ``arguments`` of a whole answer's calls, in ``message``; whether one was missing.

    Whole calls have no ``index``: it is taken out of what was written for a stream.
    """
    calls = codec.as_objects(raw)
    if not calls:
        return False
    tools = ToolCalls(seed)
    before = codec.raw(calls)
    for position, call in enumerate(calls):
        call["index"] = codec.raw(position)
        tools.normalise_one(call)
        del call["index"]
    after = codec.raw(calls)
    message["tool_calls"] = after
    return before != after
