"""Tenants and groups of calls; of a token its parent, and what it may use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0007"
branch_labels = None
depends_on = None

COLUMNS = (("tenant", ""), ("parent", ""), ("terms", "{}"))


def upgrade() -> None:
    for name, default in COLUMNS:
        op.add_column("tokens", sa.Column(name, sa.Text, nullable=False, server_default=default))
    where = sa.text("parent != ''")
    op.create_index("tokens_by_parent", "tokens", ["parent"], sqlite_where=where, postgresql_where=where)
    for table in ("tenants", "call_groups"):
        op.create_table(
            table,
            sa.Column("name", sa.Text, primary_key=True),
            sa.Column("body", sa.Text, nullable=False),
            sa.Column("created_at", sa.BigInteger, nullable=False),
            sa.Column("updated_at", sa.BigInteger, nullable=False),
        )


def downgrade() -> None:
    for table in ("call_groups", "tenants"):
        op.drop_table(table)
    op.drop_index("tokens_by_parent", "tokens")
    for name, _default in reversed(COLUMNS):
        op.drop_column("tokens", name)
