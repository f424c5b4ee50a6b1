"""Data keys, wrapped with the master key; the terms of accounts; invites of contributors.

Secrets that are sealed already stay as they are: the start that follows seals them anew (``identity.vault``).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "data_keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("wrapper", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.add_column("accounts", sa.Column("terms", sa.Text, nullable=False, server_default="{}"))
    op.create_table(
        "invites",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("account", sa.Text),
        sa.Column("account_at", sa.BigInteger),
        sa.Column("withdrawal", sa.LargeBinary),
        sa.Column("withdrawn_at", sa.BigInteger),
    )


def downgrade() -> None:
    """What was sealed with data keys does not open any more: the earlier release knows none."""
    op.drop_table("invites")
    op.drop_column("accounts", "terms")
    op.drop_table("data_keys")
