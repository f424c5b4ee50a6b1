"""Continued streams: their seams, the parts of each target, and the reason if a stream could not be continued."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COLUMNS = ("continued", "not_continued", "shares")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("requests", sa.Column(name, sa.Text))
    where = sa.text("continued IS NOT NULL")
    op.create_index("requests_continued", "requests", ["id"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_index("requests_continued", "requests")
    for name in reversed(COLUMNS):
        op.drop_column("requests", name)
