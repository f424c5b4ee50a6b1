"""A saved prompt: its versions, each a list of messages with ``{{placeholders}}``, and labels that name some of them.

A version never changes.  Its number is not given again after its end, as long as the prompt is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from headgate.catalog import words
from headgate.catalog.names import nearest
from headgate.model.prompts import LATEST, VARIABLE, PromptVersion, SavedPrompt, TemplateMessage, key_of
from headgate.resources.callers.tenant import TenantName
from headgate.resources.fields import STORE, Resource, Text, wrong

MAX_VERSION = 256 << 10  # characters of all texts and defaults
MAX_PROMPT = 1 << 20  # characters of all versions
MAX_CHARACTERS = 8 << 20  # of all prompts of the file, and of all of the store: every data process holds them
MAX_VERSIONS = 100
MAX_PLACEHOLDERS = 1000  # of one version
MAX_VARIABLES = 64


def _label(value: str) -> str:
    if value == LATEST:
        raise wrong(f"{LATEST} always means the highest version: choose another label")
    return value


PromptName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", examples=["support"])]
PromptLabel = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9._-]{0,31}$", examples=["production"]), AfterValidator(_label)
]
VersionNumber = Annotated[int, Field(ge=1, le=999_999_999)]
Variables = Annotated[
    dict[Annotated[str, Field(pattern=f"^{VARIABLE}$")], str | None],
    Field(max_length=MAX_VARIABLES, description="Their defaults; null: the caller must give a value."),
]


class MessageTable(Resource):
    """``{{name}}`` in the content is replaced by that variable's value."""

    role: words.PromptRole
    content: Annotated[str, Field(min_length=1, max_length=MAX_VERSION)]

    def template(self) -> TemplateMessage:
        return TemplateMessage.of(self.role, self.content)


class VersionWish(Resource):
    """A new version, whole."""

    messages: Annotated[list[MessageTable], Field(min_length=1, max_length=100)]
    variables: Variables = {}
    note: Text | None = None

    def numbered(self, number: int) -> PromptVersion:
        """What the data plane is told."""
        messages = tuple(message.template() for message in self.messages)
        return PromptVersion(number, messages, self.variables, self.note or "")

    @model_validator(mode="after")
    def _fits(self) -> VersionWish:
        version = self.numbered(0)
        if version.size > MAX_VERSION:
            raise wrong(f"has {version.size:,} characters; a version has at most {MAX_VERSION:,}")
        names = [name for message in version.messages for name in message.names]
        if len(names) > MAX_PLACEHOLDERS:
            raise wrong(f"has {len(names):,} placeholders; a version has at most {MAX_PLACEHOLDERS:,}")
        for name in names:
            if name not in self.variables:
                near = nearest(name, self.variables) or "; declare it, with a default or null"
                raise wrong(f"{{{{{name}}}}} is not among its variables{near}")
        return self


class VersionTable(VersionWish):
    """A version of the configuration file."""

    version: VersionNumber


class StoredVersion(VersionTable):
    created_at: int  # Unix ns


class _Versions(Resource):
    """What the file's and the store's prompts share."""

    versions: Sequence[VersionTable]
    labels: dict[PromptLabel, VersionNumber] = {}

    @model_validator(mode="after")
    def _agree(self) -> _Versions:
        numbers = [one.version for one in self.versions]
        if any(later <= number for number, later in pairwise(numbers)):
            raise wrong("its versions must stand in ascending order, each number once")
        for label, number in self.labels.items():
            if number not in numbers:
                raise wrong(f"the label {label} names version {number}, which is not there")
        size = sum(one.size for one in self.compiled)
        if size > MAX_PROMPT:
            raise wrong(f"its versions have {size:,} characters together; a prompt has at most {MAX_PROMPT:,}")
        return self

    @cached_property
    def compiled(self) -> tuple[PromptVersion, ...]:
        """The versions as the data plane has them, made once."""
        return tuple(one.numbered(one.version) for one in self.versions)

    def prompt(self, name: str, tenant: str, origin: str) -> SavedPrompt:
        """What the data plane is told."""
        return SavedPrompt(name, self.compiled, tenant, self.labels, origin)


class PromptBody(_Versions):
    """A prompt of the store.  ``highest``: the highest number that a version of it ever had."""

    name: PromptName
    tenant: TenantName | None = None
    versions: Annotated[list[StoredVersion], Field(min_length=1, max_length=MAX_VERSIONS)]
    highest: int

    def stored_prompt(self) -> SavedPrompt:
        return self.prompt(self.name, self.tenant or "", STORE)

    def described(self) -> dict[str, Any]:
        return outline(self.stored_prompt())


class PromptTable(_Versions):
    """A prompt of the configuration file."""

    name: PromptName
    tenant: TenantName | None = None
    versions: Annotated[list[VersionTable], Field(min_length=1, max_length=MAX_VERSIONS)]

    @property
    def key(self) -> str:
        return key_of(self.tenant or "", self.name)

    def declared_prompt(self) -> SavedPrompt:
        return self.prompt(self.name, self.tenant or "", "file")


class LabelsEdit(Resource):
    """Labels to set; null takes one away.  Others stay."""

    labels: Annotated[dict[PromptLabel, VersionNumber | None], Field(min_length=1, max_length=100)]


def outline(prompt: SavedPrompt) -> dict[str, Any]:
    """A prompt for the audit log.  Its texts stand there as digests: each change would repeat all of them."""
    found: dict[str, Any] = {"versions": {str(one.number): digest(one) for one in prompt.versions}}
    return {**found, "labels": dict(prompt.labels)} if prompt.labels else found


def digest(version: PromptVersion) -> str:
    """The SHA-256 of a version's messages and variables: equal where these are equal."""
    messages = [[message.role, message.text] for message in version.messages]
    text = json.dumps([messages, sorted(version.variables.items())], ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
