"""A request of another API's client, made fit for the one target that gets it as a chat completion."""

from __future__ import annotations

from collections.abc import Iterable

from headgate.model import Call, ModelRow, Target, Thought
from headgate.wire import codec
from headgate.wire.codec import Object

_THINKING = "messages.thinking"


def fit(members: Object, call: Call, target: Target) -> tuple[str, ...]:
    """Edit a request's members for ``target``; return the names of what it does not get.

    Agents ask every model for an effort.  Servers refuse that for a model without reasoning, so only a model that is
    known to reason gets it.  Reasoning of earlier turns goes back to the family that made it.
    """
    dropped: tuple[str, ...] = ()
    if "reasoning_effort" in members and not _reasons(target.row):
        del members["reasoning_effort"]
        dropped = ("reasoning_effort",)
    own = [thought for thought in call.thoughts if thought.family == target.provider.family]
    if own:
        messages = codec.as_objects(members["messages"]) or []
        texts: dict[int, list[str]] = {}
        for thought in own:
            texts.setdefault(thought.position, []).append(thought.text)
        for position, said in texts.items():
            messages[position]["reasoning_content"] = codec.raw("".join(said))
        members["messages"] = codec.raw(messages)
    return dropped + unfit(thought for thought in call.thoughts if thought not in own)


def unfit(thoughts: Iterable[Thought]) -> tuple[str, ...]:
    """Return the name of reasoning that a target does not get."""
    return (_THINKING,) if any(True for _ in thoughts) else ()


def _reasons(row: ModelRow | None) -> bool:
    return row is not None and "reasoning" in row.capabilities
