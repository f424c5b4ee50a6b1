"""Alerts that were raised, and the webhooks that have not got them yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("until", sa.BigInteger),
        sa.Column("pending", sa.Text),
        sqlite_with_rowid=False,
    )
    where = sa.text("pending IS NOT NULL")
    op.create_index("alerts_pending", "alerts", ["id"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_index("alerts_pending", "alerts")
    op.drop_table("alerts")
