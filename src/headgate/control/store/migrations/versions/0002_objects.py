"""The operator's objects in the store: providers, their accounts, aliases, overrides of the price list.  Also the
former secrets of rotated tokens, during their overlap.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table, key in (("providers", "name"), ("aliases", "name"), ("model_overrides", "id")):
        op.create_table(
            table,
            sa.Column(key, sa.Text, primary_key=True),
            sa.Column("body", sa.Text, nullable=False),
            sa.Column("created_at", sa.BigInteger, nullable=False),
            sa.Column("updated_at", sa.BigInteger, nullable=False),
        )
    op.create_table(
        "accounts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("free", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "superseded_tokens",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("token_id", sa.Text, nullable=False),
        sa.Column("until", sa.Float, nullable=False),
    )


def downgrade() -> None:
    for table in ("superseded_tokens", "accounts", "model_overrides", "aliases", "providers"):
        op.drop_table(table)
