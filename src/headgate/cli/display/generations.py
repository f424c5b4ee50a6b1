"""Which of the models that are known to show first: (the catalog's rows) → those of today, the newest first.

Providers do not publish a model's age, so its generation is read from its id: the first number that is no size.
``gpt-5.4-mini`` is generation 5.4 of ``gpt``, ``llama-3.3-70b`` is 3.3 of ``llama``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

LATEST = 12.0
AGE = 1.0  # generations behind its family's newest at which a model is a museum piece
UNKNOWN_AGE = AGE  # behind those whose age can be read
_SUFFIX = re.compile(r"(?:-(?:\d{4}-\d{2}-\d{2}|20\d{6}|latest))?(?::[a-z0-9.]+)?$")  # a date, a tag
_NUMBER = re.compile(r"([a-z]*?)(\d{1,2}(?:\.\d{1,2})?)([a-z]?)")
_SIZES = frozenset("bkm")  # 70b, 16k, 22m


class Generation(NamedTuple):
    """``number`` is None where the id has none."""

    family: str
    number: float | None


def generation(ident: str) -> Generation:
    """Family and number of ``provider/maker/model-id``."""
    parts = _plain(ident.rpartition("/")[2].lower()).split("-")
    family = re.match(r"[a-z]*", parts[0])
    name = family[0] if family else ""
    for place, part in enumerate(parts):
        found = _NUMBER.fullmatch(part)
        if found is None or found[3] in _SIZES:
            continue
        number = float(found[2])
        if number > LATEST or found[2].startswith("0"):  # a size, a month, a year
            continue
        behind = parts[place + 1] if place + 1 < len(parts) else ""
        if "." not in found[2] and len(behind) == 1 and behind.isdigit():  # claude-opus-4-5
            number += int(behind) / 10
        return Generation(name, number)
    return Generation(name, None)


def of_today(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the chat models that are neither retired nor obsolete.  Declared, recommended and used models are always
    among them.

    Newest first: the newest of each family, then those behind it, each as far as it is behind.
    """
    chat = [row for row in rows if row["headgate"]["kind"] == "chat"]
    made = {row["id"]: generation(row["id"]) for row in chat}
    newest: dict[str, float] = {}
    for row in chat:
        family, number = made[row["id"]]
        if number is not None and not row["headgate"].get("retired"):
            newest[family] = max(newest.get(family, 0.0), number)

    def behind(row: Mapping[str, Any]) -> float:
        family, number = made[row["id"]]
        return UNKNOWN_AGE if number is None else max(0.0, newest.get(family, number) - number)

    ids = {row["id"] for row in chat}
    shown = [
        row
        for row in chat
        if _is_wanted(row) or not (row["headgate"].get("retired") or behind(row) > AGE or _is_snapshot(row["id"], ids))
    ]
    return sorted(shown, key=lambda row: (row["headgate"]["provider"] == "builtin", behind(row)))


def _is_snapshot(ident: str, ids: set[str]) -> bool:
    """Another name, with a date or a tag, of a model that is listed too.  Free models are a family of their own."""
    plain = _plain(ident)
    return plain != ident and plain in ids and not ident.endswith(":free")


def _plain(ident: str) -> str:
    return _SUFFIX.sub("", ident, count=1)


def _is_wanted(row: Mapping[str, Any]) -> bool:
    block = row["headgate"]
    listed = not row["id"].startswith(f"{block['provider']}/")  # by the configuration or by the engine itself
    return bool(listed or block.get("uses_30d") or block.get("aliases") or block.get("capabilities"))
