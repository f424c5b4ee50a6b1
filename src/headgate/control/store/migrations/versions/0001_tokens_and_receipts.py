"""Tokens, receipts of calls, and how far the journal has been read.

Written out, not taken from the tables of today: a migration says what was true when it was written.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("models", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.Float),
        sa.Column("revoked_at", sa.BigInteger),
    )
    _requests()
    op.create_table(
        "journal_offsets",
        sa.Column("file", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "refusals",
        sa.Column("second", sa.BigInteger, primary_key=True),
        sa.Column("code", sa.Text, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
    )
    op.create_table("meta", sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False))


def _requests() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("grant_id", sa.Text, nullable=False),
        sa.Column("requested", sa.Text, nullable=False),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("price_input", sa.BigInteger),
        sa.Column("price_output", sa.BigInteger),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("basis", sa.Text, nullable=False),
        sa.Column("closed_at", sa.BigInteger),
        sa.Column("outcome", sa.Text),
        sa.Column("status", sa.Integer),
        sa.Column("code", sa.Text),
        *(sa.Column(f"{kind}_tokens", sa.BigInteger) for kind in ("cached", "reasoning", "cache_write")),
        sa.Column("cost", sa.BigInteger),
        *(sa.Column(f"{phase}_us", sa.BigInteger) for phase in ("duration", "queue", "connect", "ttfb", "ttft")),
        sa.Column("bytes_out", sa.BigInteger),
        sa.Column("attempts", sa.Text),
        sqlite_with_rowid=False,
    )
    labelled, running = sa.text("label IS NOT NULL"), sa.text("outcome IS NULL")
    op.create_index("requests_by_grant", "requests", ["grant_id", "id"])
    op.create_index(
        "requests_by_label", "requests", ["grant_id", "label"], sqlite_where=labelled, postgresql_where=labelled
    )
    op.create_index("requests_running", "requests", ["boot"], sqlite_where=running, postgresql_where=running)


def downgrade() -> None:
    for table in ("meta", "refusals", "journal_offsets", "requests", "tokens"):
        op.drop_table(table)
