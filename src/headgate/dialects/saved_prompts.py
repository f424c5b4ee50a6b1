"""A request's reference to a saved prompt (``headgate.prompt``), and the prompt's messages in front of a request's own.

``policy.saved_prompts`` finds the prompt and fills it.  Each client's dialect puts the messages into its own form.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Raw

from headgate.errors import INVALID_VALUE, GatewayError
from headgate.model.prompts import OPTION, VARIABLE, PromptMessage, PromptReference
from headgate.wire import codec
from headgate.wire.codec import FALSE, NULL, TRUE

_INSTRUCTING = ("system", "developer")  # roles
_MEMBERS = frozenset(("id", "version", "variables"))
_LONGEST_ID = 64
_LONGEST_VERSION = 32
_MOST_VARIABLES = 64
_LONGEST_VALUE = 64 << 10  # characters
_NAME = re.compile(VARIABLE)
_DIGITS = b"-0123456789"


def read_reference(raw: Raw, param: str = OPTION) -> PromptReference | None:
    """Read ``{id, version, variables}`` of the member ``param``; None for ``null``.  Raises GatewayError (400)."""
    if raw == NULL:
        return None
    members = codec.as_object(raw)
    if members is None:
        raise _invalid(param, "must be an object with the id of a saved prompt")
    for key in members:
        if key not in _MEMBERS:
            raise _invalid(f"{param}.{key}", "is not known: a prompt has id, version and variables")
    ident = codec.as_text(members.get("id"))
    if not ident or len(ident) > _LONGEST_ID or not ident.isprintable():
        raise _invalid(f"{param}.id", f"must be the name of a saved prompt, of 1 to {_LONGEST_ID} characters")
    version = _version(members.get("version"), f"{param}.version")
    return PromptReference(ident, version, _variables(members.get("variables"), f"{param}.variables"), param)


def names_prompt(options: Raw | None) -> bool:
    """True if the ``headgate`` object names a saved prompt, beside which a request needs no messages of its own."""
    return not codec.is_null((codec.as_object(options) or {}).get("prompt"))


def is_empty(messages: Raw | None) -> bool:
    """True for a request without messages."""
    return codec.is_null(messages) or codec.as_list(messages) == []


def parted(messages: Sequence[PromptMessage]) -> tuple[list[str], list[PromptMessage]]:
    """Return the instructions, as texts, and the other messages: for APIs whose instructions are no messages."""
    instructions = [one.text for one in messages if one.role in _INSTRUCTING and one.text]
    return instructions, [one for one in messages if one.role not in _INSTRUCTING]


def with_messages_before(raw: Raw, messages: Sequence[PromptMessage]) -> Raw:
    """Return an array of messages with others before them.  Its own keep their bytes."""
    first = codec.encode([{"role": message.role, "content": message.text} for message in messages])
    rest = bytes(raw).lstrip()[1:].lstrip()
    return Raw(first if rest.startswith(b"]") else b"%b,%b" % (first[:-1], rest))


def _version(raw: Raw | None, param: str) -> str:
    if raw is None or raw == NULL:
        return ""
    version = codec.as_text(raw)
    if version is None:
        number = codec.as_integer(raw)
        version = "" if number is None else str(number)
    if not 0 < len(version) <= _LONGEST_VERSION or not version.isprintable():
        raise _invalid(param, "must be a version's number or label; leave it out for the latest")
    return version


def _variables(raw: Raw | None, param: str) -> dict[str, str]:
    if raw is None or raw == NULL:
        return {}
    members = codec.as_object(raw)
    if members is None or len(members) > _MOST_VARIABLES:
        raise _invalid(param, f"must be an object of at most {_MOST_VARIABLES} variables")
    for name in members:
        if not _NAME.fullmatch(name):
            sentence = "has a name that no variable can have: letters, digits and _, at most 64"
            raise _invalid(param, sentence)
    return {name: _value(f"{param}.{name}", value) for name, value in members.items()}


def _value(param: str, raw: Raw) -> str:
    """Return a value as text.  Numbers and booleans keep their JSON text."""
    text = codec.as_text(raw)
    if text is None and (raw in (TRUE, FALSE) or memoryview(raw)[0] in _DIGITS):
        text = bytes(raw).decode()
    if text is None or len(text) > _LONGEST_VALUE:
        limit = f"of at most {_LONGEST_VALUE:,} characters"
        raise _invalid(param, f"must be a string {limit}, a number or a boolean")
    return text


def _invalid(param: str, what: str) -> GatewayError:
    return GatewayError(INVALID_VALUE, f"'{param}' {what}.", param=param)
