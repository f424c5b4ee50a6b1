"""Tool calls as the client gets them: one index, one id, one type and one name each.

Servers send one index for parallel calls, or an index that counts deltas.  Ids are empty, missing, alike, or new with
each delta.  Arguments are objects, or begin again with each delta.  So a call is told from the next one by its name,
and by the end of its arguments.
"""

from __future__ import annotations

import hashlib

from msgspec import Raw

from headgate.dialects.openai_chat.stream.arguments import EMPTY, Arguments
from headgate.errors import UPSTREAM_GARBAGE, GatewayError
from headgate.wire import codec
from headgate.wire.codec import EMPTY_TEXT, NULL, Object

MOST_CALLS = 1024  # of one choice: a request may offer 128 tools
_FUNCTION = Raw(b'"function"')


class StreamedCall:
    """One call.  ``ident``: its id for the client.  ``theirs``: the ids that the server has used for it.

    ``waits``: it began with ``{}``, which the client does not have: some servers send that before the arguments.
    """

    __slots__ = ("arguments", "cumulative", "half", "ident", "name", "renamed", "theirs", "waits")

    def __init__(self, ident: str, name: str) -> None:
        self.ident = ident
        self.name = name
        self.theirs: set[str] = set()
        self.arguments = Arguments()
        self.waits = False
        self.renamed = False  # its name came again after complete arguments: another call may follow
        self.cumulative = False
        self.half = b""  # of a surrogate pair, at the end of the last piece


class _CallDelta:
    """One entry of ``tool_calls``, read.  ``body`` is its ``function`` (or ``custom``) object."""

    __slots__ = ("arguments", "body", "edited", "ident", "index", "key", "members", "name", "opens", "typed")

    def __init__(self, members: Object) -> None:
        self.members = members
        self.key = "custom" if "custom" in members and codec.is_null(members.get("function")) else "function"
        self.edited = False
        body = codec.as_object(members.get(self.key))
        if body is None and "name" in members:  # without the object around it
            body = {key: members.pop(key) for key in ("name", "arguments") if key in members}
            self.edited = True
        if body and stringify(body):
            self.edited = True
        if body and self.edited:
            members[self.key] = codec.raw(body)
        self.body = body
        self.ident = codec.as_text(members.get("id")) or ""
        self.name = (codec.as_text(body.get("name")) or "") if body else ""
        self.arguments = (codec.as_text(codec.repaired(body.get(self.field))) or "") if body else ""
        self.index = codec.as_index(members.get("index"))
        self.opens = "id" in members and members["id"] != NULL
        self.typed = bool(codec.as_text(members.get("type")))

    @property
    def field(self) -> str:
        return "arguments" if self.key == "function" else "input"

    def rename(self, name: str) -> None:
        self.name = name
        self.body = {"name": codec.raw(name), **(self.body or {})}
        self.members[self.key] = codec.raw(self.body)


class ToolCalls:
    """The tool calls of one choice so far.  More than 1,024 raise GatewayError.

    Fills a delta's missing members (``index``; ``id`` and ``type`` of a call's first).  Removes repeated ones, because
    clients' accumulators join repeated strings.
    """

    __slots__ = ("_at", "_by_id", "_seed", "_size", "calls")

    def __init__(self, seed: str) -> None:
        self.calls: list[StreamedCall] = []  # by the index that the client sees
        self._at: dict[int, int] = {}  # the upstream's index → ours
        self._by_id: dict[str, int] = {}
        self._seed = seed
        self._size = 0

    @property
    def sound(self) -> bool:
        """True if every call's arguments are JSON."""
        return all(call.arguments.sound for call in self.calls)

    @property
    def waits(self) -> bool:
        return bool(self.calls) and any(call.waits for call in self.calls)

    @property
    def doubled(self) -> bool:
        """True if a call has another value after its arguments."""
        return any(call.arguments.doubled for call in self.calls)

    def take_waiting(self, before: int | None = None) -> list[Object]:
        """Return the waiting deltas of all calls, or of those before one, whose continuation has not come."""
        deltas: list[Object] = []
        for index, call in enumerate(self.calls[:before]):
            if call.waits:
                call.waits = False
                function = {"arguments": call.arguments.text}
                deltas.append({"index": codec.raw(index), "function": codec.raw(function)})
        return deltas

    def take_size(self) -> int:
        """Return the bytes of names and arguments since the last call."""
        size, self._size = self._size, 0
        return size

    def normalise(self, raw: Raw, whole: bool = False) -> Raw | None:
        """Return the ``tool_calls`` of one delta in the client's form; None if nothing had to change.

        ``whole``: no delta follows.
        """
        deltas, changed = _entries(raw)
        before = len(self.calls)
        for delta in deltas:
            changed = self.normalise_one(delta, whole) or changed
        if before and len(self.calls) > before:
            waiting = self.take_waiting(before)
            return codec.raw(waiting + deltas) if changed or waiting else None
        return codec.raw(deltas) if changed else None

    def normalise_one(self, members: Object, whole: bool = False) -> bool:
        """Normalise one entry in place.  Return true if it was changed."""
        delta = _CallDelta(members)
        changed = delta.edited
        index = self._index(delta)
        if delta.index != index or members.get("index") != codec.raw(index):
            members["index"] = codec.raw(index)
            changed = True
        if delta.body and delta.field in delta.body:
            self._size += max(0, len(delta.body[delta.field]) - 2)
        if index == len(self.calls):
            changed = self.open(delta.members, delta) or changed
            return (not whole and self._wait(delta, self.calls[index])) or changed
        return self._continue(delta, self.calls[index]) or changed

    # ------------------------------------------------------------------------------- which call

    def _index(self, delta: _CallDelta) -> int:
        """Return the index of a delta's call; ``len(self.calls)`` for a new one."""
        new = len(self.calls)
        ours = self._known(delta)
        if ours is None or self._is_another(delta, self.calls[ours]):
            if ours is not None and not delta.name:
                delta.rename(self.calls[ours].name)
            ours = new
            if delta.index is not None:
                self._at[delta.index] = new
        elif delta.index is not None:
            self._at.setdefault(delta.index, ours)
        if delta.ident:
            self._by_id[delta.ident] = ours
        return ours

    def _known(self, delta: _CallDelta) -> int | None:
        """Return the call that a delta's id or index names, if it has begun."""
        by_id = self._by_id.get(delta.ident) if delta.ident else None
        if by_id is not None:
            return by_id
        last = len(self.calls) - 1
        if delta.index is None:
            return last if last >= 0 else None
        by_index = self._at.get(delta.index)
        before = self.calls[last] if by_index is None and last >= 0 and not delta.name else None
        if before is not None and (before.waits or not before.arguments.complete):
            return last  # an index of its own for every delta: no call begins without a name
        return by_index

    def _is_another(self, delta: _CallDelta, call: StreamedCall) -> bool:
        """True if a delta at a call's place begins the next one."""
        arguments = call.arguments
        text = delta.arguments.strip()
        fresh_id = bool(delta.ident) and delta.ident not in call.theirs
        elsewhere = delta.index is not None and delta.index not in self._at
        if not delta.name:
            return call.renamed and bool(text) and arguments.complete
        if not call.name:
            return False
        if delta.name != call.name:
            if arguments.size or fresh_id or elsewhere:
                return not (call.cumulative and delta.name.startswith(call.name))
            # So far the call has only a name.  A delta with its own id or type is a new call, else more of the name.
            if delta.ident and not text:
                return False
            if delta.typed or (delta.opens and not delta.ident):
                return True
            return not delta.ident and text[:1] == "{" and not delta.name.startswith(call.name)
        if elsewhere and not fresh_id and delta.ident and (not arguments.size or (arguments.complete and text)):
            return True  # ids alike, at an index of its own
        if arguments.complete:
            return self._is_same_function_again(delta, call, text, fresh_id)
        return fresh_id and not arguments.size and not text

    def _is_same_function_again(self, delta: _CallDelta, call: StreamedCall, text: str, fresh_id: bool) -> bool:
        """Behind complete arguments: a second call of the function, or the name repeated once more."""
        if call.cumulative and call.arguments.text == delta.arguments:
            return False
        if call.waits and delta.ident and not fresh_id:
            return False
        if text:
            return fresh_id or not delta.ident or call.arguments.text.strip() != text
        call.renamed = True
        return fresh_id

    # ------------------------------------------------------------------------------- what the client gets

    def open(self, members: Object, read: _CallDelta | None = None) -> bool:
        """A call's first delta, or all of it: with everything that the client needs."""
        delta = read or _CallDelta(members)
        changed = False
        index = len(self.calls)
        if index >= MOST_CALLS:
            raise GatewayError(UPSTREAM_GARBAGE, f"The upstream made more than {MOST_CALLS} tool calls in one answer.")
        ident = delta.ident
        if not ident or any(call.ident == ident for call in self.calls):
            ident = "call_" + hashlib.blake2b(f"{self._seed}/{index}".encode(), digest_size=12).hexdigest()
            members["id"] = codec.raw(ident)
            changed = True
        if codec.is_null(members.get("type")) or members["type"] == EMPTY_TEXT:
            members["type"] = _FUNCTION if delta.key == "function" else codec.raw(delta.key)
            changed = True
        call = StreamedCall(ident, delta.name)
        if delta.ident:
            call.theirs.add(delta.ident)
        self.calls.append(call)
        body = delta.body
        if body is not None and codec.is_null(body.get(delta.field)):
            body[delta.field] = EMPTY_TEXT
            members[delta.key] = codec.raw(body)
            changed = True
        self._size += len(delta.name)
        return self._take_arguments(delta, call) or changed

    def _continue(self, delta: _CallDelta, call: StreamedCall) -> bool:
        members, body = delta.members, delta.body
        changed = members.pop("id", None) is not None
        if delta.ident:
            call.theirs.add(delta.ident)
        changed = members.pop("type", None) is not None or changed
        if body is None:
            return changed
        stale = [key for key, value in body.items() if value == NULL]
        if "name" in body:
            rest = delta.name
            if not call.arguments.size and call.name and rest.startswith(call.name):
                rest = rest[len(call.name) :]
            elif rest == call.name or call.cumulative:
                rest = ""
            call.name += rest
            if not rest:
                stale.append("name")
            elif rest != delta.name:
                body["name"] = codec.raw(rest)
                stale.append("")
        for key in stale:
            body.pop(key, None)
        if stale:
            members[delta.key] = codec.raw(body)
        return self._take_arguments(delta, call) or changed or bool(stale)

    @staticmethod
    def _wait(delta: _CallDelta, call: StreamedCall) -> bool:
        """Hold back an empty object at a call's beginning.  Return true if there was one."""
        if delta.body is None or delta.field != "arguments" or call.arguments.text.strip() != EMPTY:
            return False
        call.waits = True
        delta.body[delta.field] = EMPTY_TEXT
        delta.members[delta.key] = codec.raw(delta.body)
        return True

    @staticmethod
    def _without_repeats(piece: str, delta: _CallDelta, call: StreamedCall) -> str:
        """The piece as it follows complete arguments, or an empty object that waits."""
        if not piece or delta.field != "arguments" or not call.arguments.complete:
            return piece
        if call.waits and piece.strip() != EMPTY:
            call.waits = False
            if piece.lstrip()[:1] != "{":
                return call.arguments.take() + piece
            call.arguments.take()
            return piece
        return "" if not delta.name and call.arguments.says_again(piece) else piece

    def _take_arguments(self, delta: _CallDelta, call: StreamedCall) -> bool:
        """Counts a piece of arguments, without what has come before; whether that changed it."""
        body, field = delta.body, delta.field
        raw = body.get(field) if body is not None else None
        if body is None or raw is None:
            return False
        piece, changed = self._without_halves(raw, delta.arguments, call)
        arguments = call.arguments
        if arguments.complete:
            fresh = self._without_repeats(piece, delta, call)
            changed = changed or fresh != piece
            piece = fresh
        if (
            piece
            and arguments.repeats(piece, call.cumulative)
            and (call.cumulative or len(piece) > arguments.size or delta.name)
        ):
            call.cumulative = True
            piece = piece[arguments.size :]
            changed = True
        arguments.add(piece)
        if changed:
            body[field] = codec.raw(piece)
            delta.members[delta.key] = codec.raw(body)
        return changed

    @staticmethod
    def _without_halves(raw: Raw, piece: str, call: StreamedCall) -> tuple[str, bool]:
        """The piece, with a half that the last one ended with, and without one that it ends with itself."""
        if not call.half and not codec.has_halves(bytes(raw)):
            return piece, False
        inside, call.half = codec.split_half(call.half + bytes(raw)[1:-1])
        return codec.as_text(b'"%b"' % codec.join_halves(inside)) or "", True


def complete_calls(message: Object, raw: Raw, seed: str) -> bool:
    """Fill ``id``, ``type`` and ``arguments`` of a whole answer's calls, in ``message``.  Return true if one was
    missing.

    Each entry is one call, even if ids are alike.
    """
    entries, odd = _entries(raw)
    if not entries:
        return False
    tools = ToolCalls(seed)
    before = codec.raw(entries)
    for call in entries:
        call.pop("index", None)
        tools.open(call)
    after = codec.raw(entries)
    message["tool_calls"] = after
    return odd or before != after


def _entries(raw: Raw) -> tuple[list[Object], bool]:
    """Return the entries of a ``tool_calls`` member, and true if it was not a plain list of them."""
    entries = codec.as_objects(raw)
    if entries is not None:
        return entries, False
    alone = codec.as_object(raw)
    if alone is not None:
        return [alone], True
    return [entry for entry in map(codec.as_object, codec.as_list(raw) or ()) if entry is not None], True


def stringify(function: Object) -> bool:
    """Makes a string of arguments that came as an object, as the clients read them; whether they did."""
    arguments = function.get("arguments")
    if arguments is None or memoryview(arguments)[0] not in b"{[":
        return False
    function["arguments"] = codec.raw(bytes(arguments).decode(errors="replace"))
    return True
