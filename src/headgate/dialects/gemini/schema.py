"""Schemas of this API ⇄ JSON Schema.

A ``Schema`` of this API is a part of OpenAPI 3.0: its types are in capitals, and ``nullable`` stands for the type
``null`` (ai.google.dev/api/caching, Schema).
"""

from __future__ import annotations

from msgspec import Raw

from headgate.wire import codec

_DEEPEST = 64
_NUMBERS = frozenset(("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"))
_SCHEMAS = frozenset(("items", "additionalProperties", "not"))
_LISTS = frozenset(("anyOf", "oneOf", "allOf", "prefixItems"))
_MAPS = frozenset(("properties", "$defs", "definitions"))


def as_json_schema(raw: Raw) -> Raw:
    """Return a ``Schema`` as JSON Schema.  A value that is none stays as it is."""
    return codec.raw(_converted(codec.as_any(raw), 0))


def _converted(value: object, depth: int) -> object:
    if not isinstance(value, dict) or depth > _DEEPEST:
        return value
    found: dict[str, object] = {}
    nullable = False
    for key, member in value.items():
        if key == "type" and isinstance(member, str):
            found[key] = member.lower()
        elif key == "nullable":
            nullable = member is True
        elif key == "propertyOrdering":
            continue
        elif key in _NUMBERS and isinstance(member, str) and member.isascii() and member.isdigit() and len(member) < 19:
            found[key] = int(member)  # int64 is a string in this API's JSON
        elif key in _SCHEMAS:
            found[key] = _converted(member, depth + 1)
        elif key in _LISTS and isinstance(member, list):
            found[key] = [_converted(one, depth + 1) for one in member]
        elif key in _MAPS and isinstance(member, dict):
            found[key] = {name: _converted(one, depth + 1) for name, one in member.items()}
        else:
            found[key] = member
    if nullable and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found
