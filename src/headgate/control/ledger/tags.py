"""The tags of a receipt's row, in both databases' SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, func, literal_column


def tag_value(tags: ColumnElement[Any], name: str, dialect: str) -> ColumnElement[Any]:
    """The value of one tag of a row, NULL where it has none."""
    if dialect == "sqlite":
        quoted = name.replace('"', '\\"')
        return func.json_extract(tags, f'$."{quoted}"')
    return as_json(tags).op("->>")(name)


def as_json(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """PostgreSQL's ``json`` of a text."""
    return column.op("::")(literal_column("json"))
