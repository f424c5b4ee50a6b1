"""Saved prompts as the data plane sees them, and a request's reference to one."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct, field

VARIABLE = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
_PLACEHOLDER = re.compile(r"\{\{[ \t]{0,8}(" + VARIABLE + r")[ \t]{0,8}\}\}")
_NUMBER = re.compile(r"[0-9]{1,9}")
LATEST = "latest"
OPTION = "headgate.prompt"  # the member of a request that names a prompt


class PromptMessage(Struct, frozen=True, gc=False):
    """One message of plain text.  ``role``: system | developer | user | assistant."""

    role: str
    text: str


class TemplateMessage(Struct, frozen=True, gc=False):
    """A message with placeholders.  ``parts``: texts at even places, and between them the names of variables."""

    role: str
    parts: tuple[str, ...]

    @classmethod
    def of(cls, role: str, text: str) -> TemplateMessage:
        """Split at each ``{{name}}``.  All other braces are text."""
        return cls(role, tuple(_PLACEHOLDER.split(text)))

    @property
    def text(self) -> str:
        """The text with its placeholders."""
        return "".join(f"{{{{{part}}}}}" if place % 2 else part for place, part in enumerate(self.parts))

    @property
    def names(self) -> tuple[str, ...]:
        """The variables of its placeholders, one for each."""
        return self.parts[1::2]


class PromptVersion(Struct, frozen=True, omit_defaults=True):
    """One version, which never changes.  ``variables``: their defaults; None: the caller must give a value."""

    number: int
    messages: tuple[TemplateMessage, ...]
    variables: Mapping[str, str | None] = field(default_factory=dict)
    note: str = ""

    @property
    def size(self) -> int:
        """Characters of its texts."""
        texts = sum(len(part) for message in self.messages for part in message.parts)
        return texts + sum(len(default or "") for default in self.variables.values())


class SavedPrompt(Struct, frozen=True, omit_defaults=True):
    """A prompt that requests may name.  ``tenant``: only its tokens may use it; empty: all tokens may.

    ``versions`` is in ascending order and not empty.  ``labels``: names of versions, such as ``production``.
    """

    name: str
    versions: tuple[PromptVersion, ...]
    tenant: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)
    origin: str = "file"  # file | store

    @property
    def key(self) -> str:
        """``tenant/name``, or ``name``: unique over all prompts, because no name has a slash."""
        return key_of(self.tenant, self.name)

    @property
    def size(self) -> int:
        """Characters of all versions."""
        return sum(version.size for version in self.versions)

    def version(self, wanted: str) -> PromptVersion | None:
        """Return the version of this number or label; the latest for an empty text or ``latest``.  None: no such."""
        if wanted in ("", LATEST):
            return self.versions[-1]
        number = int(wanted) if _NUMBER.fullmatch(wanted) else self.labels.get(wanted)
        return next((version for version in self.versions if version.number == number), None)


def key_of(tenant: str, name: str) -> str:
    return f"{tenant}/{name}" if tenant else name


class PromptReference(Struct, frozen=True, gc=False):
    """A request's prompt, in the member ``param``.  ``version``: a number, a label, or empty for the latest."""

    id: str
    version: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    param: str = OPTION
