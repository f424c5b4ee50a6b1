"""The hooks of one call, in the order of the configuration: on its request, on its answer, on its summary."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from headgate.errors import NOT_YET_SUPPORTED, GatewayError
from headgate.hooks.api import CallSummary
from headgate.hooks.conversation import RewritableRequest
from headgate.hooks.guard import HookGuard, HookPassedOver
from headgate.model import Call
from headgate.wire import codec
from headgate.wire.codec import NULL

MOST_HELD = 4096  # characters: no hook may hold more


class Hooks:
    """All hooks of this process."""

    def __init__(self, guards: Sequence[HookGuard]) -> None:
        self.on_request = [guard for guard in guards if hasattr(guard.hook, "on_request")]
        self.masking = [guard for guard in guards if hasattr(guard.hook, "mask")]
        self.on_receipt = [guard for guard in guards if hasattr(guard.hook, "on_receipt")]
        self._all = guards

    def gauges(self) -> dict[str, float]:
        return {
            "hook_failures": sum(guard.failures for guard in self._all),
            "hook_overruns": sum(guard.overruns for guard in self._all),
        }

    def look_at(self, call: Call, acted: dict[str, None]) -> Call:
        """Return the call as the hooks want it; the names of those that act go into ``acted``.  Raises GatewayError."""
        conversation = RewritableRequest(call)
        size = sum(map(len, call.body.values()))
        for guard in self.on_request:
            try:
                guard.call("request", size, guard.hook.on_request, conversation)
                if guard.call("request", size, conversation.settle):  # raises if it has put there what is no request
                    acted[guard.name] = None
            except HookPassedOver:
                conversation.drop()
        return conversation.call

    def masks(self, channel: str, acted: dict[str, None]) -> Masks:
        return Masks(self.masking, channel, acted)

    def summarise(self, summary: CallSummary) -> None:
        """Tell the hooks of a call that is over.  Raises nothing."""
        for guard in self.on_receipt:
            with contextlib.suppress(HookPassedOver, GatewayError):
                guard.call("receipt", 0, guard.hook.on_receipt, summary)


def check_maskable(call: Call) -> None:
    """Refuse what a masked answer does not have.  Raises GatewayError (400)."""
    body = call.body
    said = "is not supported while a hook of this gateway masks answers."
    if call.prompt.choices > 1:
        raise GatewayError(NOT_YET_SUPPORTED, f"'n' above 1 {said}", param="n")
    if codec.as_boolean(body.get("logprobs")):
        raise GatewayError(NOT_YET_SUPPORTED, f"'logprobs' {said}", param="logprobs")
    if body.get("audio", NULL) != NULL:
        raise GatewayError(NOT_YET_SUPPORTED, f"'audio' {said}", param="audio")


class Masks:
    """The masks of one channel, each reading what the one before it lets pass."""

    def __init__(self, guards: Sequence[HookGuard], channel: str, acted: dict[str, None]) -> None:
        self._stages: list[_Stage] = []
        self.changed = False  # something of the text is not as the model wrote it
        for guard in guards:
            with contextlib.suppress(HookPassedOver):
                mask = guard.call("answer", 0, guard.hook.mask, channel)
                if mask is not None:
                    self._stages.append(guard.call("answer", 0, _Stage, guard, mask, acted))

    def feed(self, text: str, last: bool = False) -> str:
        """Return what may leave.  ``last``: nothing is held any longer.  Raises GatewayError."""
        for stage in self._stages:
            text = stage.feed(text, last)
            self.changed = self.changed or stage.changed
        return text


class _Stage:
    """One mask and the text that it holds."""

    def __init__(self, guard: HookGuard, mask: Any, acted: dict[str, None]) -> None:
        self._guard = guard
        self._mask = mask
        self._window = min(int(getattr(mask, "window", 0)), MOST_HELD)
        self._acted = acted
        self._held = ""
        self.changed = False
        self._over = False  # it has failed and is passed over

    def feed(self, text: str, last: bool) -> str:
        text = self._held + text
        if self._over or not text:
            return text
        out, held = self._scan(text, last)
        if len(held) > self._window:
            more, held = self._scan(held, True)
            out += more
        self._held = held
        return out

    def _scan(self, text: str, last: bool) -> tuple[str, str]:
        try:
            out, used = self._guard.call("answer", len(text), _checked, self._mask, text, last)
        except HookPassedOver:
            self._over = True
            return text, ""
        if out != text[:used]:
            self.changed = True
            self._acted[self._guard.name] = None
        return out, text[used:]


def _checked(mask: Any, text: str, last: bool) -> tuple[str, int]:
    out, used = mask.scan(text, last)
    if type(out) is not str or type(used) is not int or not 0 <= used <= len(text) or (last and used < len(text)):
        raise TypeError("scan returns a text, and how many characters of the given one it stands for")
    return out, used
