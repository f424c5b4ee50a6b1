"""Saved prompts as the operator changes them in the store: see ``changes``.  Pure, but for the time of a version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from headgate.catalog import names
from headgate.control.objects import registry
from headgate.control.objects.assemble import Sources
from headgate.control.objects.holders import existing_tenant
from headgate.control.objects.registry import Objects, StoredPrompt
from headgate.control.refusals import IN_USE, MANAGED_BY_FILE, TOO_MANY
from headgate.errors import INVALID_VALUE, PROMPT_NOT_FOUND, GatewayError
from headgate.model.prompts import SavedPrompt, key_of
from headgate.resources.callers.prompt import (
    MAX_CHARACTERS,
    MAX_PROMPT,
    MAX_VERSIONS,
    PromptBody,
    StoredVersion,
    VersionWish,
    digest,
)

MAX_PROMPTS = 2000


def add_version(sources: Sources, tenant: str, name: str, wish: VersionWish) -> tuple[Objects, tuple[int, bool]]:
    """The next version of a prompt, which is made where there is none; its number, and true.  One that is the same as
    the latest is not made again: the latest's number, and false.
    """
    existing_tenant(tenant, sources)
    key = key_of(tenant, name)
    _not_of_file(sources, key)
    kept = sources.objects.prompts.get(key)
    at = registry.now()[0]
    before = kept.body if kept is not None else None
    if before is not None and digest(before.compiled[-1]) == digest(wish.numbered(0)):
        return sources.objects, (before.compiled[-1].number, False)
    number = 1 if before is None else before.highest + 1
    version = StoredVersion(version=number, created_at=at, **_given(wish))
    versions = [*(before.versions if before is not None else ()), version]
    _check_room(sources.objects.prompts, key, versions)
    body = PromptBody(
        name=name, tenant=tenant or None, versions=versions, labels=before.labels if before else {}, highest=number
    )
    return _with(sources, key, kept, body), (number, True)


def set_labels(sources: Sources, key: str, labels: Mapping[str, int | None]) -> Objects:
    """With these labels, and without those that are None."""
    kept = _stored(sources, key)
    numbers = [version.number for version in kept.body.compiled]
    for label, number in labels.items():
        if number is not None and number not in numbers:
            raise no_version(kept.body.stored_prompt(), str(number), param=f"labels.{label}")
    merged = {**kept.body.labels, **labels}
    left = {label: number for label, number in sorted(merged.items()) if number is not None}
    return _with(sources, key, kept, _changed(kept.body, labels=left))


def drop_version(sources: Sources, key: str, number: int) -> Objects:
    """Without one version, unless a label names it or it is the only one."""
    kept = _stored(sources, key)
    left = [version for version in kept.body.versions if version.version != number]
    if len(left) == len(kept.body.versions):
        raise no_version(kept.body.stored_prompt(), str(number))
    if named := [label for label, labelled in kept.body.labels.items() if labelled == number]:
        sentence = f"The label {named[0]} names version {number} of {key}. Move or remove the label first."
        raise GatewayError(IN_USE, sentence)
    if not left:
        raise GatewayError(IN_USE, f"Version {number} is the only one of {key}. Delete the whole prompt instead.")
    return _with(sources, key, kept, _changed(kept.body, versions=left))


def drop_prompt(sources: Sources, key: str) -> Objects:
    """Without the prompt and all its versions."""
    prompts = sources.objects.prompts
    if key not in prompts:
        _not_of_file(sources, key)
        raise no_prompt(key, prompts)
    return replace(sources.objects, prompts={one: kept for one, kept in prompts.items() if one != key})


def no_prompt(key: str, known: Iterable[str]) -> GatewayError:
    """Names the nearest of the same tenant's."""
    tenant = key.rpartition("/")[0]
    near = names.nearest(key, [one for one in known if one.rpartition("/")[0] == tenant])
    return GatewayError(PROMPT_NOT_FOUND, names.ended(f"There is no prompt {key!r}{near}"))


def no_version(prompt: SavedPrompt, wanted: str, param: str | None = None) -> GatewayError:
    there = ", ".join([*(str(version.number) for version in prompt.versions), *prompt.labels])
    kind = INVALID_VALUE if param else PROMPT_NOT_FOUND
    return GatewayError(kind, f"The prompt {prompt.key} has no version {wanted!r}; it has {there}.", param=param)


def _given(wish: VersionWish) -> dict[str, Any]:
    return {name: getattr(wish, name) for name in VersionWish.model_fields}


def _changed(body: PromptBody, **changes: Any) -> PromptBody:
    """A new body: a copy would keep the compiled versions of the old one."""
    return PromptBody(**{name: getattr(body, name) for name in PromptBody.model_fields} | changes)


def _with(sources: Sources, key: str, kept: StoredPrompt | None, body: PromptBody) -> Objects:
    stored = StoredPrompt(*registry.now(kept), body)
    return replace(sources.objects, prompts={**sources.objects.prompts, key: stored})


def _stored(sources: Sources, key: str) -> StoredPrompt:
    kept = sources.objects.prompts.get(key)
    if kept is None or key in sources.compiled.world.prompts:
        _not_of_file(sources, key)
        raise no_prompt(key, sources.objects.prompts)
    return kept


def _not_of_file(sources: Sources, key: str) -> None:
    if key in sources.compiled.world.prompts:
        sentence = f"The prompt {key} is declared in the configuration file: change it there and reload."
        raise GatewayError(MANAGED_BY_FILE, sentence)


def _check_room(prompts: Mapping[str, StoredPrompt], key: str, versions: Sequence[StoredVersion]) -> None:
    """Raises GatewayError (409) where another version would be too much."""
    if key not in prompts and len(prompts) >= MAX_PROMPTS:
        raise GatewayError(TOO_MANY, f"There are {MAX_PROMPTS:,} prompts in the store, which is the limit.")
    if len(versions) > MAX_VERSIONS:
        sentence = f"The prompt {key} has {MAX_VERSIONS} versions, which is the limit; delete old ones first."
        raise GatewayError(TOO_MANY, sentence)
    size = sum(version.numbered(0).size for version in versions)
    if size > MAX_PROMPT:
        sentence = f"The versions of {key} would have {size:,} characters together, of {MAX_PROMPT:,}; delete old ones."
        raise GatewayError(TOO_MANY, sentence)
    others = sum(kept.body.stored_prompt().size for one, kept in prompts.items() if one != key)
    if others + size > MAX_CHARACTERS:
        sentence = f"All stored prompts together may have {MAX_CHARACTERS:,} characters; delete versions first."
        raise GatewayError(TOO_MANY, sentence)
