"""The tags of a receipt's row, in both databases' SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, func, literal_column, select


def tag_value(tags: ColumnElement[Any], name: str, dialect: str) -> ColumnElement[Any]:
    """The value of one tag of a row, NULL where it has none."""
    if dialect == "sqlite":
        # Not json_extract: no path of it reaches a key with a quotation mark or a backslash
        tag = func.json_each(tags).table_valued("key", "value", name="one_tag")
        return select(tag.c.value).where(tag.c.key == name).scalar_subquery()
    return as_json(tags).op("->>")(name)


def as_json(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """PostgreSQL's ``json`` of a text."""
    return column.op("::")(literal_column("json"))
