"""What pydantic finds wrong with a value, in words of our own: (an error's details) → a phrase behind the field's name.

For the configuration file, the admin API and the store.  Pure; what was given is never repeated, since it may be a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

_TYPES = {
    "missing": "is missing",
    "extra_forbidden": "is not known here",
    "int_from_float": "must be a whole number",
    "finite_number": "must be a finite number",
    "none_required": "must be left out",
    "json_invalid": "is not valid JSON",
    "value_error": "{error}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} {entries}",
    "string_pattern_mismatch": "has characters that are not allowed here, or too many ({pattern})",
    "decimal_max_digits": "has too many digits",
    "decimal_max_places": "has too many decimals",
    **dict.fromkeys(("string_type", "string_sub_type", "string_unicode"), "must be text"),
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(
        ("float_type", "float_parsing", "decimal_type", "decimal_parsing", "is_instance_of"), "must be a number"
    ),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "iterable_type"), "must be a list"),
    **dict.fromkeys(
        ("dict_type", "model_type", "model_attributes_type", "mapping_type", "dataclass_type"), "must be an object"
    ),
}


def phrase(detail: Mapping[str, Any]) -> str:
    """``must be a whole number``.  An error that is not known here says what pydantic says."""
    context: Mapping[str, Any] = detail.get("ctx") or {}
    kind = str(detail["type"])
    if kind == "string_too_short":
        return (
            "is empty" if context.get("min_length") == 1 else f"must have at least {context['min_length']} characters"
        )
    if kind == "greater_than_equal" and context.get("ge") == 0:
        return "must not be negative"
    words = _TYPES.get(kind)
    if words is None:
        return str(detail["msg"]).replace("Input should", "should", 1)
    few = "entry" if context.get("min_length") == 1 else "entries"
    return words.format(**{"entries": few, "error": "", **context})


def sentence(error: ValidationError) -> str:
    """The first of an error's problems, with the place of the field."""
    detail = error.errors(include_url=False, include_input=False)[0]
    return ": ".join(filter(None, (".".join(map(str, detail["loc"])), phrase(detail))))
