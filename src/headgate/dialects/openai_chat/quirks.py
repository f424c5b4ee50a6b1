"""Named edits of a chat request, for servers that refuse what the API allows.

A provider's row or its ``quirks:`` switch them on; a provider without any pays nothing.  Each changes the request's
members in place and looks at nothing else.  Only what does not change the answer's meaning is ever dropped: where a
provider cannot do what the client asked for (``logprobs``, ``logit_bias``), its own refusal is the honest answer.
docs/providers.md lists what each one drops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from headgate.model import Call
from headgate.wire import codec
from headgate.wire.codec import Object

_BOOKKEEPING = ("metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user")
_SYSTEM = codec.raw("system")
_DEVELOPER = codec.raw("developer")
_NAMED_ROLES = ("function", "tool")  # there the name says which function answered


class Quirk(NamedTuple):
    """``what`` is a sentence for people; ``drops`` are the client's fields that do not reach the upstream."""

    what: str
    edit: Callable[[Object], None]
    drops: tuple[str, ...] = ()


def adds_stream_options(call: Call) -> bool:
    """Whether ``stream_options`` is in the upstream's request for our own sake: the client has asked for nothing that
    the gateway could not tell it without the upstream.
    """
    given = codec.as_object(call.body.get("stream_options"))
    return not given or given.keys() <= {"include_usage"}


def apply(members: Object, names: Iterable[str]) -> None:
    """Edits a request's members.  ``names`` are keys of ``QUIRKS``: who configures them has checked that."""
    for name in names:
        QUIRKS[name].edit(members)


def _rename(old: str, new: str) -> Callable[[Object], None]:
    def edit(members: Object) -> None:
        value = members.pop(old, None)
        if value is not None:
            members.setdefault(new, value)

    return edit


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
    """The messages where one of them may be concerned, else none: nothing is parsed for nothing."""
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
