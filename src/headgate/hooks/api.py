"""What a hook is, for those who write one: docs/hooks.md has the way and an example.

A hook is any object with one or more of the three methods of ``Hook``.  Its factory, the entry point, is called once
with the ``options`` of the configuration.  Calls of many clients take turns in one thread: a hook that blocks holds up
all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct

TEXT, REASONING, REFUSAL, ARGUMENTS = "text", "reasoning", "refusal", "arguments"  # the channels of an answer


class HookRefusal(Exception):
    """Raised by a hook to refuse a request or to end an answer.

    ``found`` is the kind of thing that it found ("an API key"); the client reads it, so it must never be the value.
    """

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found


class HookRequest(Protocol):
    """A request before routing, in the form of a chat completion, whichever API its client speaks."""

    @property
    def model(self) -> str | None:
        """The model that the client names."""

    @property
    def stream(self) -> bool: ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """The client's ``headgate.metadata``."""

    def texts(self) -> list[str]:
        """Return all strings of the conversation: messages, tools, the user's name, metadata."""

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Put ``change(text)`` in the place of every such string."""

    def member(self, name: str) -> Any:
        """Return a member of the body as plain values; None: it has none of that name."""

    def put(self, name: str, value: Any) -> None:
        """Set a member of the body; None takes it out."""

    def note(self) -> None:
        """Name this hook in the route trace and in the summary.  A change does that by itself."""


class Mask(Protocol):
    """The changes to one channel of one answer.

    ``window``: so many characters at most may be held back, waiting for more.
    """

    window: int

    def scan(self, text: str, last: bool) -> tuple[str, int]:
        """Return what the client gets for the first n characters of ``text``, and n.

        The rest is held and given again with what follows it.  ``last``: nothing follows, so n is ``len(text)``.
        May raise HookRefusal, which ends the answer.
        """


class CallSummary(Struct, frozen=True):
    """A call that is over.  ``cost`` in nano-USD (None: unknown), ``duration`` in seconds; empty: not known."""

    id: str
    token: str  # its public id
    requested: str
    outcome: str
    status: int
    code: str
    provider: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    cost: int | None
    duration: float
    hooks: tuple[str, ...]  # which have acted


class Hook(Protocol):
    """All methods are optional."""

    def on_request(self, request: HookRequest) -> None:
        """Look at a request before routing, change it, or raise HookRefusal."""

    def mask(self, channel: str) -> Mask | None:
        """Return a new mask for one channel of an answer, or None.

        ``arguments`` is JSON: the arguments of one tool call, or the text of an answer that follows a schema.
        """

    def on_receipt(self, summary: CallSummary) -> None:
        """See what has become of a call."""
