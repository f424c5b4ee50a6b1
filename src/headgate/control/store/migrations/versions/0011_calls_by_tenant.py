"""An index of calls by their tenant, for the lists and the usage of tenant admins."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    where = sa.text("tenant IS NOT NULL")
    op.create_index("requests_by_tenant", "requests", ["tenant", "id"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_index("requests_by_tenant", "requests")
