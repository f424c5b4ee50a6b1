"""Named edits of a chat request, for servers that refuse what the API allows.

A provider's row or its ``quirks:`` switch them on; a provider without any pays nothing.  Each changes the request's
members in place and reads nothing else.  A quirk drops only members that do not change the answer's meaning.  A request
for a feature that the provider lacks (``logprobs``, ``logit_bias``) is passed on: its refusal is the honest answer.
docs/providers.md lists the dropped members.  ``fit`` makes a request of another API's client fit for the one target
that gets it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from headgate.model import Call, ModelRow, Target, Thought
from headgate.wire import codec
from headgate.wire.codec import NULL, Object

_BOOKKEEPING = ("metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user")
_SYSTEM = codec.raw("system")
_DEVELOPER = codec.raw("developer")
_LIMITS = ("max_tokens", "max_completion_tokens")
UNLIMITED = -1  # of a limit: there is none
_NAMED_ROLES = ("function", "tool")  # in these messages the name is the function's


class Quirk(NamedTuple):
    """``what`` is a sentence for people; ``drops`` are the client's fields that do not reach the upstream."""

    what: str
    edit: Callable[[Object], None]
    drops: tuple[str, ...] = ()


def adds_stream_options(call: Call) -> bool:
    """True if only the gateway needs ``stream_options`` in the upstream's request: the client asks there for
    nothing but usage, which the gateway can estimate.
    """
    given = codec.as_object(call.body.get("stream_options"))
    return not given or given.keys() <= {"include_usage"}


def apply(members: Object, names: Iterable[str]) -> tuple[str, ...]:
    """Edit a request's members, and return the names of those that were dropped.  ``names`` are keys of ``QUIRKS``, as
    the configuration's check ensures.
    """
    dropped: tuple[str, ...] = ()
    for name in names:
        quirk = QUIRKS[name]
        before = [field for field in quirk.drops if field in members]
        quirk.edit(members)
        dropped += tuple(field for field in before if field not in members)
    return dropped


def lacks(members: Object, name: str) -> bool:
    """True if a request does not set ``name``.  Null counts as not set."""
    return codec.is_null(members.get(name)) and not _limited_otherwise(members, name)


def _limited_otherwise(members: Object, name: str) -> bool:
    """True if ``name`` is a limit that the request sets under its other name.  Servers refuse both together."""
    return name in _LIMITS and any(not codec.is_null(members.get(other)) for other in _LIMITS)


def renamed(members: Object, names: Mapping[str, str]) -> Object:
    """Return the members under other names.  Of two with one name, null gives way, then the renamed one."""
    result: Object = {}
    for key, value in members.items():
        name = names.get(key, key)
        if codec.is_null(result.get(name)) or (key == name and value != NULL):
            result[name] = value
    return result


def _rename(old: str, new: str) -> Callable[[Object], None]:
    def edit(members: Object) -> None:
        value = members.pop(old, None)
        if value is not None and codec.is_null(members.get(new)):
            members[new] = value

    return edit


def _no_unlimited(members: Object) -> None:
    for name in _LIMITS:
        if name in members and codec.as_integer(members[name]) == UNLIMITED:
            del members[name]


def _drop(*fields: str) -> Callable[[Object], None]:
    def edit(members: Object) -> None:
        for field in fields:
            members.pop(field, None)

    return edit


def _developer_as_system(members: Object) -> None:
    messages = _messages(members, b'"developer"')
    for message in messages:
        if message.get("role") == _DEVELOPER:
            message["role"] = _SYSTEM
    if messages:
        members["messages"] = codec.raw(messages)


def _no_message_names(members: Object) -> None:
    messages = _messages(members, b'"name"')
    for message in messages:
        if codec.as_text(message.get("role")) not in _NAMED_ROLES:
            message.pop("name", None)
    if messages:
        members["messages"] = codec.raw(messages)


def _messages(members: Object, needle: bytes) -> list[Object]:
    """Return the messages if one of them may need the edit, else none, so that others are not parsed."""
    raw = members.get("messages")
    if raw is None or needle not in bytes(raw):
        return []
    return codec.as_objects(raw) or []


QUIRKS: Mapping[str, Quirk] = {
    # platform.openai.com/docs/api-reference/chat: max_tokens is deprecated, reasoning models refuse it
    "max_completion_tokens": Quirk(
        "sends max_tokens as max_completion_tokens", _rename("max_tokens", "max_completion_tokens")
    ),
    # docs.mistral.ai/api: max_tokens only, an unknown field is 422; api-docs.deepseek.com ignores the new name
    "max_tokens": Quirk("sends max_completion_tokens as max_tokens", _rename("max_completion_tokens", "max_tokens")),
    # docs.mistral.ai/api, docs.perplexity.ai: system, user, assistant and tool are all there is
    "developer_as_system": Quirk("sends messages of the role developer as system", _developer_as_system),
    # OpenAI, vLLM and most hosted APIs refuse a limit below 1; llama.cpp, LM Studio and Ollama document -1
    "no_unlimited": Quirk("leaves out a max_tokens of -1, which means no limit", _no_unlimited, ("max_tokens of -1",)),
    # docs.mistral.ai/api: the seed is called random_seed
    "seed_as_random_seed": Quirk("sends seed as random_seed", _rename("seed", "random_seed")),
    # console.groq.com/docs/openai: messages[].name is answered with 400
    "no_message_names": Quirk(
        "leaves out the name of messages that are not a function's or a tool's", _no_message_names, ("messages[].name",)
    ),
    # docs.mistral.ai/api: fields it does not know are 422; none of these changes what the model says
    "no_bookkeeping": Quirk(f"leaves out {', '.join(_BOOKKEEPING)}", _drop(*_BOOKKEEPING), _BOOKKEEPING),
    # servers that refuse the field; the usage of streams is then estimated
    "no_stream_options": Quirk(
        "never asks a stream for its usage: it is estimated then", _drop("stream_options"), ("stream_options",)
    ),
}


# ------------------------------------------------------------------------------------- requests of other APIs

_THINKING = "messages.thinking"


def fit(members: Object, call: Call, target: Target) -> tuple[str, ...]:
    """Edit a request of another API's client for ``target``; return the names of what it does not get.

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
