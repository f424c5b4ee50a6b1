"""A request as hooks see it: the members of a chat completion as plain values, and the texts in them.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headgate.dialects import canonical
from headgate.model import Call
from headgate.wire import codec

# Members with texts of people, or for them
_MEMBERS = ("messages", "tools", "functions", "prediction", "user", "metadata")
# Members of those that name things, or hold what is no text
_NO_TEXT = frozenset(
    (
        "role", "type", "id", "tool_call_id", "call_id", "tool_use_id", "name", "signature", "format", "media_type",
        "detail", "data", "file_data",
    )
)  # fmt: skip
_ATTACHED = "data:"  # how an image in a URL begins


class RewritableRequest:
    """Implements ``api.HookRequest``.  Mutable: ``call``, which is another one after ``settle``."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.noted = False  # by the hook that has it now
        self._values: dict[str, Any] = {}
        self._changed: set[str] = set()

    @property
    def model(self) -> str | None:
        return self.call.model

    @property
    def stream(self) -> bool:
        return self.call.stream

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.call.metadata or {}

    def texts(self) -> list[str]:
        found: list[str] = []

        def add(text: str) -> str:
            found.append(text)
            return text

        for name in _MEMBERS:
            if name in self.call.body:
                _each(self.member(name), add)
        return found

    def rewrite(self, change: Callable[[str], str]) -> None:
        for name in _MEMBERS:
            if name in self.call.body:
                value = self.member(name)
                changed = _each(value, change)
                if changed is not value:
                    self.put(name, changed)

    def member(self, name: str) -> Any:
        if name not in self._values:
            raw = self.call.body.get(name)
            self._values[name] = None if raw is None else msgspec.json.decode(raw)
        return self._values[name]

    def put(self, name: str, value: Any) -> None:
        self._values[name] = value
        self._changed.add(name)

    def note(self) -> None:
        self.noted = True

    def settle(self) -> bool:
        """Make the changes of one hook part of ``call``.  Return whether the hook has acted.

        Raises GatewayError for a request that cannot be meant, msgspec's errors for values that JSON does not have.
        """
        acted, self.noted = self.noted or bool(self._changed), False
        if self._changed:
            body = self.call.body.copy()
            for name in self._changed:
                if self._values[name] is None:
                    body.pop(name, None)
                else:
                    body[name] = codec.raw(self._values[name])
            self.call = canonical.rewritten(self.call, body)
            self._changed.clear()
        return acted

    def drop(self) -> None:
        """Forget the changes of a hook that has failed."""
        self.noted = False
        self._changed.clear()
        self._values.clear()


def _each(value: Any, change: Callable[[str], str], name: str = "") -> Any:
    """Return ``value`` with ``change`` made to its texts: the same object, if none has changed."""
    if isinstance(value, str):
        if name == "url" and value.startswith(_ATTACHED):
            return value
        changed = change(value)
        return value if changed == value else changed
    if isinstance(value, list):
        items = [_each(item, change, name) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    if isinstance(value, dict):
        table = {key: item if key in _NO_TEXT else _each(item, change, key) for key, item in value.items()}
        return table if any(table[key] is not value[key] for key in value) else value
    return value
