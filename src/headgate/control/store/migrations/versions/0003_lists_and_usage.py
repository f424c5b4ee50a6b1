"""Lists and sums that stay quick at ten million rows: indexes for the filters, bounds per stretch of time, usage per
day.  Also the price of a call.

A store of ten million rows takes minutes to get here, once; the data process serves meanwhile.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

DAY_NS = 86_400_000_000_000
ZONE = 16  # characters of an id
KEYS = ("detail", "day", "grant_id", "provider", "model", "requested", "outcome")
SUMS = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "cost", "unpriced")
SERVED = "outcome = 'delivered' OR completion_tokens > 0"


def upgrade() -> None:
    op.add_column("requests", sa.Column("price_source", sa.Text))
    _indexes()
    _tables()
    _fill()


def _indexes() -> None:
    for name in ("model", "requested", "provider"):
        op.create_index(f"requests_by_{name}", "requests", [name, "id"])
    for name in ("requests_by_label", "requests_running"):
        op.drop_index(name, "requests")
    labelled = "label IS NOT NULL"
    for name, columns, text in (
        ("by_label", ["label", "id"], labelled),
        ("by_grant_label", ["grant_id", "label", "id"], labelled),
        ("by_outcome", ["outcome", "id"], "outcome != 'delivered'"),
        ("by_code", ["code", "id"], "code != ''"),
        ("running", ["outcome", "id"], "outcome IS NULL"),
    ):
        where = sa.text(text)
        op.create_index(f"requests_{name}", "requests", columns, sqlite_where=where, postgresql_where=where)


def _tables() -> None:
    op.create_table(
        "request_zones",
        sa.Column("zone", sa.Text, primary_key=True),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("plain", sa.Boolean, nullable=False),
        sa.Column("max_cost", sa.BigInteger, nullable=False),
        sa.Column("max_duration_us", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usage_days",
        *(sa.Column(name, sa.Integer, primary_key=True, autoincrement=False) for name in KEYS[:2]),
        *(sa.Column(name, sa.Text, primary_key=True) for name in KEYS[2:]),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in (*SUMS, "first_at")),
        sqlite_with_rowid=False,
    )


def _fill() -> None:
    """Both tables, from the rows that there are."""
    op.execute(
        f"INSERT INTO usage_days ({', '.join((*KEYS, *SUMS))}, first_at) SELECT 2, created_at / {DAY_NS}, grant_id, "
        f"provider, CASE WHEN {SERVED} THEN model ELSE '' END, CASE WHEN {SERVED} THEN requested ELSE '' END, outcome, "
        "count(*), sum(prompt_tokens), sum(completion_tokens), sum(coalesce(cached_tokens, 0)), "
        "sum(coalesce(reasoning_tokens, 0)), sum(coalesce(cost, 0)), "
        "sum(CASE WHEN cost IS NULL AND prompt_tokens + completion_tokens > 0 THEN 1 ELSE 0 END), min(created_at) "
        "FROM requests WHERE outcome IS NOT NULL GROUP BY 2, 3, 4, 5, 6, 7"
    )
    sums = ", ".join(f"sum({name})" for name in SUMS)
    for keys in ("0, day, '', provider, model, requested, outcome", "1, day, grant_id, '', '', '', outcome"):
        op.execute(
            f"INSERT INTO usage_days ({', '.join((*KEYS, *SUMS))}, first_at) SELECT {keys}, {sums}, min(first_at) "
            "FROM usage_days WHERE detail = 2 GROUP BY 1, 2, 3, 4, 5, 6, 7"
        )
    op.execute(
        "INSERT INTO request_zones (zone, streamed, plain, max_cost, max_duration_us) "
        f"SELECT substr(id, 1, {ZONE}), max(CASE WHEN stream THEN 1 ELSE 0 END) = 1, "
        "max(CASE WHEN stream THEN 0 ELSE 1 END) = 1, max(coalesce(cost, -1)), max(coalesce(duration_us, 0)) "
        "FROM requests GROUP BY 1"
    )


def downgrade() -> None:
    op.drop_table("usage_days")
    op.drop_table("request_zones")
    for name in (
        "by_model",
        "by_requested",
        "by_provider",
        "by_label",
        "by_grant_label",
        "by_outcome",
        "by_code",
        "running",
    ):
        op.drop_index(f"requests_{name}", "requests")
    for name, columns, text in (
        ("by_label", ["grant_id", "label"], "label IS NOT NULL"),
        ("running", ["boot"], "outcome IS NULL"),
    ):
        where = sa.text(text)
        op.create_index(f"requests_{name}", "requests", columns, sqlite_where=where, postgresql_where=where)
    op.drop_column("requests", "price_source")
