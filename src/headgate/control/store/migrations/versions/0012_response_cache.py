"""How calls used the response cache, and what hits did not cost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("requests", sa.Column("cache", sa.Text))
    op.add_column("requests", sa.Column("saved", sa.BigInteger))
    where = sa.text("cache IS NOT NULL")
    columns = ["id", "cache", "saved"]
    op.create_index("requests_cached", "requests", columns, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_index("requests_cached", "requests")
    op.drop_column("requests", "saved")
    op.drop_column("requests", "cache")
