"""The hooks that ship, each a set of rules with two options.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headgate.hooks import personal, secrets
from headgate.hooks.api import HookRefusal, HookRequest
from headgate.hooks.rules import Rule, RuleMask, find_kinds

OFF, MASK, REFUSE = "off", "mask", "refuse"


class RuleHook:
    """``on_request``: refuse | mask | off.  ``on_answer``: mask | off.  Implements ``api.Hook``."""

    def __init__(self, rules: Sequence[Rule], window: int, options: Mapping[str, Any]) -> None:
        self._rules = rules
        self._window = window
        self._on_request = options.get("on_request", MASK)
        self._on_answer = options.get("on_answer", MASK)

    def on_request(self, request: HookRequest) -> None:
        if self._on_request == MASK:
            request.rewrite(self._masked)
        elif self._on_request == REFUSE:
            for text in request.texts():
                if kind := find_kinds(self._rules, text):
                    raise HookRefusal(f"{'an' if kind[0] in 'aeiouA' else 'a'} {kind}")

    def mask(self, channel: str) -> RuleMask | None:
        return RuleMask(self._rules, self._window, channel) if self._on_answer == MASK else None

    def _masked(self, text: str) -> str:
        return RuleMask(self._rules, self._window).scan(text, True)[0]


def mask_secrets(options: Mapping[str, Any]) -> RuleHook:
    return RuleHook(secrets.RULES, secrets.WINDOW, options)


def mask_personal(options: Mapping[str, Any]) -> RuleHook:
    return RuleHook(personal.RULES, personal.WINDOW, options)
