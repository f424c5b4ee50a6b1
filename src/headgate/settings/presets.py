"""Presets: add a row of ``providers/`` to the tree, below the file's own values.

So a provider with a preset is checked, shown and compiled like any other one; where each value came from stays known
(``Tree.presets``).  Looks at the environment for nothing but the variables that rows name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.catalog.names import nearest
from headgate.catalog.presets import Row, Unfilled, base_url, fields, key_in, unusable_keys
from headgate.settings.file import Location, Tree


def expand(tree: Tree, rows: Mapping[str, Row], environ: Mapping[str, str]) -> list[tuple[Location, str]]:
    """Fills in ``tree.root["providers"]``.  Returns the problems: places and sentences."""
    declared = tree.root.get("providers")
    if not isinstance(declared, dict):
        return []  # the schema says what is wrong with it
    problems: list[tuple[Location, str]] = []
    with_keys = looks_around(tree)
    for name, table in declared.items():
        if table is not None and not isinstance(table, dict):
            continue
        given = {key: value for key, value in (table or {}).items() if value is not None}
        here: Location = ("providers", name)
        preset = given.get("preset", name if name in rows and "base_url" not in given else None)
        if not isinstance(preset, str):
            continue
        row = rows.get(preset)
        if row is None:
            problems.append(((*here, "preset"), f"there is no preset {preset!r}{nearest(preset, rows)}"))
            continue
        taken = _taken(row, given)
        if "base_url" not in given:
            try:
                taken["base_url"] = base_url(row, environ)
            except Unfilled as error:
                problems.append(((*here, "base_url"), str(error)))
                continue
        found = key_in(row, environ) if with_keys and "keys" not in given and _wants_key(taken, given) else None
        if not found and with_keys and "keys" not in given and _wants_key(taken, given):
            problems += [(here, f"the environment variable {one}") for one in unusable_keys(row, environ)]
        if found:
            taken["keys"] = [{"key": found[1], "label": found[0]}]
        for key in taken:
            tree.presets[(*here, key)] = f"environment variable {found[0]}" if found and key == "keys" else preset
        declared[name] = {**taken, **{key: value for key, value in given.items() if key not in taken}}
    return problems


def from_environment(tree: Tree, rows: Mapping[str, Row], environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The providers that the file does not declare and whose key is in the environment, as tables of the file."""
    if not looks_around(tree):
        return {}
    declared = tree.root.get("providers")
    if not isinstance(declared, dict):
        declared = {}
    named = (table.get("preset") for table in declared.values() if isinstance(table, dict))
    presets = {name for name in named if isinstance(name, str)}  # the schema says what is wrong with another
    found = {}
    for name, row in rows.items():
        key = key_in(row, environ)
        if name in declared or name in presets:
            continue
        if key is None:
            tree.warnings += [f"{one}: no provider {name} is made of it" for one in unusable_keys(row, environ)]
            continue
        try:
            url = base_url(row, environ)
        except Unfilled:
            continue  # the key alone does not say where to
        found[name] = {**fields(row), "base_url": url, "keys": [{"key": key[1], "label": key[0]}]}
        tree.presets[("providers", name)] = name
        tree.presets[("providers", name, "keys")] = f"environment variable {key[0]}"
    return found


def looks_around(tree: Tree) -> bool:
    """Whether keys are looked for in the environment (``detect.environment``)."""
    detect = tree.root.get("detect")
    wanted = detect.get("environment") if isinstance(detect, dict) else None
    return str(wanted).lower() not in ("false", "0", "no", "off")  # the schema accepts these from variables


def _taken(row: Row, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row's values that the file does not have.  Headers are put together: one of the row's may be
    replaced.
    """
    taken = {key: value for key, value in fields(row).items() if key not in given}
    headers = given.get("headers")
    if isinstance(headers, dict):
        names = {str(name).lower() for name in headers}
        taken["headers"] = {
            **{name: value for name, value in row.headers.items() if name.lower() not in names},
            **headers,
        }
    return taken


def _wants_key(taken: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    return bool(given.get("auth", taken.get("auth")) != "none")
