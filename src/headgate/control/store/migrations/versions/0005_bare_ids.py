"""Ids of requests without ``chatcmpl-``: the API that a client speaks puts the prefix before them.

SQLite does all of it in one transaction, which the first UPDATE opens.  PostgreSQL writes the table and its indexes
anew, which is quicker than an UPDATE and leaves no dead rows.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

PREFIX = "chatcmpl-"
INDEXES = (
    ("by_grant", ["grant_id", "id"], None),
    *((f"by_{name}", [name, "id"], None) for name in ("model", "requested", "provider")),
    ("by_label", ["label", "id"], "label IS NOT NULL"),
    ("by_grant_label", ["grant_id", "label", "id"], "label IS NOT NULL"),
    ("by_outcome", ["outcome", "id"], "outcome != 'delivered'"),
    ("by_code", ["code", "id"], "code != ''"),
    ("continued", ["id"], "continued IS NOT NULL"),
    ("running", ["outcome", "id"], "outcome IS NULL"),
)


def upgrade() -> None:
    _rewrite(f"substr({{0}}, {len(PREFIX) + 1})", f"{{0}} LIKE '{PREFIX}%'")


def downgrade() -> None:
    _rewrite(f"'{PREFIX}' || {{0}}", f"{{0}} NOT LIKE '{PREFIX}%'")


def _rewrite(changed: str, which: str) -> None:
    """``changed``: the new text of a column; ``which``: the rows that need it."""
    op.execute(f"UPDATE request_zones SET zone = {changed.format('zone')} WHERE {which.format('zone')}")
    if op.get_bind().dialect.name != "sqlite":
        text = f"CASE WHEN {which.format('id')} THEN {changed.format('id')} ELSE id END"
        op.execute(f"ALTER TABLE requests ALTER COLUMN id TYPE text USING {text}")
        return
    for name, _columns, _condition in INDEXES:  # every one of them has the id in it
        op.drop_index(f"requests_{name}", "requests")
    op.execute(f"UPDATE requests SET id = {changed.format('id')} WHERE {which.format('id')}")
    for name, columns, condition in INDEXES:
        where = None if condition is None else sa.text(condition)
        op.create_index(f"requests_{name}", "requests", columns, sqlite_where=where)
