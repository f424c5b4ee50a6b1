"""The rules for a key, from the file, the environment or the vault's door.  Pure.

Characters that pasting and tools leave around a key are removed (blanks, newlines, quotes).  A text that cannot be a
key is refused, and so is an unfilled placeholder: it would be sent to the provider as the key.  No message quotes the
text.
"""

from __future__ import annotations

import re

MAX = 4096

_AROUND = " \t\r\n\v\f\ufeff\u200b"
_NAME = r"([A-Za-z_][A-Za-z0-9_]*)"
_PLACEHOLDERS = (
    re.compile(rf"\$\{{\s*(?:env[.:])?{_NAME}.*"),  # ${NAME, ${NAME-x}, ${env:NAME}, ${env.NAME}
    re.compile(rf"\{{\{{\s*(?:env\.|\.|secrets\.)?{_NAME}[^{{}}]*\}}\}}"),  # {{NAME}}, {{ .NAME }}
    re.compile(rf"\$\{{\{{\s*(?:secrets\.|env\.)?{_NAME}[^{{}}]*\}}\}}"),  # ${{ secrets.NAME }}
    re.compile(rf"os\.environ/{_NAME}"),
    re.compile(rf"os\.(?:environ|getenv)[\[(]['\"]?{_NAME}.*"),
    re.compile(rf"(?:process\.)?env[.:/]{_NAME}"),
    re.compile(rf"\$env:{_NAME}"),
    re.compile(r"%([A-Z_][A-Z0-9_]+)%"),
    re.compile(rf"\{{env:{_NAME}\}}"),
    re.compile(r"\$\(.*\)?()"),
    # A key may begin with a $, but hardly continues like a variable's name
    re.compile(r"\$([A-Z][A-Z0-9]*_[A-Z0-9_]*|[a-z][a-z0-9]*_[a-z0-9_]*|[A-Z]+)"),
)


def clean(text: str) -> str:
    """Remove the blanks, newlines and one pair of quotes around it."""
    text = text.strip(_AROUND)
    if len(text) > 1 and text[0] in "\"'" and text[-1] == text[0]:
        text = text[1:-1].strip(_AROUND)
    return text


def problem(text: str) -> str | None:
    """Return the reason why a clean text is no key, to be read after its name; None if it can be one."""
    if not text:
        return "is empty"
    for pattern in _PLACEHOLDERS:
        if match := pattern.fullmatch(text):
            if not match[1]:
                return "is an unfilled placeholder, no key"
            name = match[1]
            return f"is a placeholder, no key: write ${{{name}}} for what the environment variable {name} holds"
    if len(text) > MAX:
        return f"is longer than {MAX} characters"
    if not text.isascii() or not text.isprintable() or " " in text:
        return "must be printable ASCII without spaces"
    if text[0] in "\"'" or text[-1] in "\"'":
        return "begins or ends with a quote that belongs to no pair"
    return None


def key_of(text: str) -> str | None:
    """Return the clean key; None if the text cannot be one."""
    cleaned = clean(text)
    return cleaned if problem(cleaned) is None else None
