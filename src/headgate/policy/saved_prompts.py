"""A saved prompt with a caller's variables: (the request's reference, its tenant, the Snapshot's prompts) → messages.

There is no template language: a value is inserted as it is, and its own braces are text.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from headgate.errors import INVALID_VALUE, PROMPT_NOT_FOUND, GatewayError
from headgate.model import Call
from headgate.model.prompts import PromptMessage, PromptReference, PromptVersion, SavedPrompt, key_of

MOST_EXPANDED = 1 << 20  # characters: a value may stand in many places
TAG, VERSION_TAG = "prompt", "prompt_version"  # of a receipt


class ExpandedPrompt(Struct, frozen=True):
    """``messages`` go before the caller's own.  ``name`` and ``version`` say where they come from."""

    name: str
    version: int
    messages: tuple[PromptMessage, ...]

    def tags(self, given: Mapping[str, str] | None) -> dict[str, str]:
        """Return the caller's tags with the prompt's, by which usage is told.  Raises GatewayError (400)."""
        for tag in (TAG, VERSION_TAG):
            if given is not None and tag in given:
                sentence = f"'headgate.metadata' may not have {tag!r} beside a saved prompt, which sets it."
                raise GatewayError(INVALID_VALUE, sentence, param="headgate.metadata")
        return {**(given or {}), TAG: self.name, VERSION_TAG: f"{self.name}@{self.version}"}


def put_before(
    call: Call,
    tenant: str,
    prompts: Mapping[str, SavedPrompt],
    put: Callable[[Call, Sequence[PromptMessage]], Call],
) -> Call:
    """Return the call with its saved prompt's messages before its own, and with tags that name the prompt.  ``put``
    is that of the client's dialect.  The same call, if it names no prompt.  Raises as ``expand`` does.
    """
    if call.saved_prompt is None:
        return call
    expanded = expand(call.saved_prompt, tenant, prompts)
    return put(replace(call, metadata=expanded.tags(call.metadata), saved_prompt=None), expanded.messages)


def expand(reference: PromptReference, tenant: str, prompts: Mapping[str, SavedPrompt]) -> ExpandedPrompt:
    """Return the messages of the referenced version.  A tenant's own prompt comes before one for all.

    Raises GatewayError: 404 for a prompt or a version that the caller does not have, 400 for its variables.
    """
    prompt = prompts.get(key_of(tenant, reference.id)) or prompts.get(reference.id)
    if prompt is None or prompt.tenant not in ("", tenant):
        sentence = f"There is no saved prompt {reference.id!r} for this API key."
        raise GatewayError(PROMPT_NOT_FOUND, sentence, param=f"{reference.param}.id")
    version = prompt.version(reference.version)
    if version is None:
        sentence = (
            f"The saved prompt {prompt.name!r} has no version {reference.version!r}; without one, the latest serves."
        )
        raise GatewayError(PROMPT_NOT_FOUND, sentence, param=f"{reference.param}.version")
    messages = filled(version, reference.variables, f"{reference.param}.variables")
    return ExpandedPrompt(prompt.name, version.number, messages)


def filled(version: PromptVersion, given: Mapping[str, str], param: str) -> tuple[PromptMessage, ...]:
    """Return a version's messages with these values, which came in the member ``param``.

    Raises GatewayError (400) for a variable that is missing or unknown, and where the result is too long.
    """
    values = _values(version, given, param)
    size = version.size + sum(len(values[name]) for message in version.messages for name in message.names)
    if size > MOST_EXPANDED:
        sentence = f"The prompt with its variables is longer than {MOST_EXPANDED:,} characters: send shorter values."
        raise GatewayError(INVALID_VALUE, sentence, param=param)
    return tuple(
        PromptMessage(
            message.role,
            "".join(values[part] if place % 2 else part for place, part in enumerate(message.parts)),
        )
        for message in version.messages
    )


def _values(version: PromptVersion, given: Mapping[str, str], param: str) -> dict[str, str]:
    known = version.variables
    for name in given:
        if name not in known:
            takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
            raise _wrong(f"{param}.{name}", f"is not a variable of this prompt's version {version.number}: {takes}")
    values: dict[str, str] = {}
    for name, default in known.items():
        value = given.get(name, default)
        if value is None:
            raise _wrong(f"{param}.{name}", f"is missing: this prompt's version {version.number} has no default for it")
        values[name] = value
    return values


def _wrong(param: str, what: str) -> GatewayError:
    return GatewayError(INVALID_VALUE, f"'{param}' {what}.", param=param)
