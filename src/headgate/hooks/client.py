"""A client behind hooks: an API that callers speak, with an operator's code between it and the gateway.

Its requests are what the hooks make of them, and its answers are masked: never passed through, but composed of deltas,
whose last stage this is.  So attempts, continuations and the tally see what the model wrote; the client, the replay
memory and the idempotent answers have what the masks let pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from headgate.dialects.base import (
    Client,
    Delta,
    Face,
    Finish,
    RawDelta,
    ReasoningDelta,
    RefusalDelta,
    Reply,
    TextDelta,
    ToolDelta,
    ToolStart,
)
from headgate.errors import GatewayError
from headgate.hooks.api import ARGUMENTS, REASONING, REFUSAL, TEXT
from headgate.hooks.chain import Hooks, Masks, check_maskable
from headgate.model import Call, PromptMessage, Usage
from headgate.ports import StreamBridge

MASKED = "+masked"  # behind the name of an API: no provider speaks that, so nothing is passed through


class HookedClient:
    """One call's.  Implements ``base.Client``.  ``acted``: the names of the hooks that have changed something."""

    def __init__(self, client: Client, hooks: Hooks) -> None:
        self.name = client.name + MASKED if hooks.masking else client.name
        self.path = client.path
        self.prefix = client.prefix
        self.keep_alive = client.keep_alive
        self.whole_calls = client.whole_calls
        self.counts = client.counts
        self.requested = client.requested
        self.error_body = client.error_body
        self.error_event = client.error_event
        self.acted: dict[str, None] = {}
        self._client = client
        self._hooks = hooks
        self._face: MaskedFace | None = None
        self._structured = False  # the answer's text is JSON

    def begin(self, path: bytes, query: bytes) -> HookedClient:
        return self

    def read(self, body: bytes) -> Call:
        """Return the client's request as its hooks let it; one that names a saved prompt waits for that.  Raises
        GatewayError.
        """
        call = self._client.read(body)
        return self._examined(call) if call.saved_prompt is None else call

    def with_prompt(self, call: Call, messages: Sequence[PromptMessage]) -> Call:
        return self._examined(self._client.with_prompt(call, messages))

    def _examined(self, call: Call) -> Call:
        call = self._hooks.look_at(call, self.acted)
        if self._hooks.masking:
            check_maskable(call)
            self._structured = call.prompt.obstacle == "structured"
        return call

    def face(self, reply: Reply, before: StreamBridge | None = None) -> Face:
        face = self._client.face(reply, before)
        if not self._hooks.masking:
            return face
        self._face = MaskedFace(face, self._open)
        return self._face

    def _open(self, channel: str) -> Masks:
        return self._hooks.masks(ARGUMENTS if channel == TEXT and self._structured else channel, self.acted)

    def flush(self) -> bytes:
        """Events for what is still held of a stream that broke: it is no beginning of anything any more."""
        return self._face.flush() if self._face is not None else b""


_TextDelta = TextDelta | ReasoningDelta | RefusalDelta
_Key = str | int  # of a channel: its name, or the index of a tool call


class MaskedFace:
    """Implements ``base.Face``.  Mutable: the masks, and whether one has refused or failed: nothing leaves then."""

    def __init__(self, face: Face, open_masks: Callable[[str], Masks]) -> None:
        self._face = face
        self._open = open_masks
        self._masks: dict[_Key, Masks] = {}
        self._model: str | None = None  # None: the client's stream has not begun
        self._broken = False

    def put(self, deltas: Sequence[Delta], model: str) -> bytes:
        self._model = model
        return self._face.put(self.passed(deltas), model)

    def tail(self, finish: Finish, usage: Usage, extra: bytes | None, trace: bytes | None) -> bytes:
        return self.flush() + self._face.tail(finish, usage, extra, trace)

    def error(self, error: GatewayError) -> bytes:
        return self.flush() + self._face.error(error)

    def whole(
        self, deltas: Sequence[Delta], model: str, usage: Usage, extra: bytes | None, trace: bytes | None
    ) -> bytes:
        return self._face.whole(deltas, model, usage, extra, trace)

    def screen(self, deltas: Sequence[Delta]) -> Sequence[Delta]:
        """What the client gets of a whole answer.  Raises GatewayError."""
        finish = [delta for delta in deltas if isinstance(delta, Finish)]
        return [*self.passed(deltas), *self._end(), *finish]

    def flush(self) -> bytes:
        """Events for what is still held.  A hook that fails now keeps it."""
        if self._model is None or self._broken:
            return b""
        try:
            held = self._end()
        except GatewayError:
            return b""
        return self._face.put(held, self._model) if held else b""

    def passed(self, deltas: Sequence[Delta]) -> list[Delta]:
        """What may leave now.  Raises GatewayError."""
        out: list[Delta] = []
        try:
            for delta in deltas:
                self._pass(delta, out)
        except GatewayError:
            self._broken = True
            raise
        return out

    def _pass(self, delta: Delta, out: list[Delta]) -> None:
        match delta:
            case TextDelta():
                self._close(REASONING, out)
                self._feed(TEXT, delta, out)
            case ReasoningDelta():
                self._feed(REASONING, delta, out)
            case RefusalDelta():
                self._feed(REFUSAL, delta, out)
            case ToolStart():
                for key in (REASONING, TEXT, REFUSAL):
                    self._close(key, out)
                out.append(delta)
            case ToolDelta():
                text = self._of(delta.index).feed(delta.arguments)
                if text:
                    out.append(ToolDelta(delta.index, text))
            case RawDelta() | Finish():
                pass  # bytes that no mask reads; the end has its own way

    def _feed(self, key: str, delta: _TextDelta, out: list[Delta]) -> None:
        text = self._of(key).feed(delta.text)
        if isinstance(delta, ReasoningDelta) and delta.signature:
            self._sign(text, delta, out)
        elif text:
            out.append(replace(delta, text=text))

    def _sign(self, text: str, delta: ReasoningDelta, out: list[Delta]) -> None:
        """A signature ends a block of reasoning: none of it is held any longer."""
        masks = self._of(REASONING)
        text += masks.feed("", last=True)
        out.append(ReasoningDelta(text, "" if masks.changed else delta.signature))
        self._masks.pop(REASONING)

    def _close(self, key: _Key, out: list[Delta]) -> None:
        masks = self._masks.get(key)
        text = masks.feed("", last=True) if masks is not None else ""
        if text:
            out.append(_delta(key, text))

    def _end(self) -> list[Delta]:
        out: list[Delta] = []
        for key in self._masks:
            self._close(key, out)
        return out

    def _of(self, key: _Key) -> Masks:
        masks = self._masks.get(key)
        if masks is None:
            masks = self._masks[key] = self._open(key if isinstance(key, str) else ARGUMENTS)
        return masks


def _delta(key: _Key, text: str) -> Delta:
    if isinstance(key, int):
        return ToolDelta(key, text)
    if key == REASONING:
        return ReasoningDelta(text)
    return TextDelta(text) if key == TEXT else RefusalDelta(text)
