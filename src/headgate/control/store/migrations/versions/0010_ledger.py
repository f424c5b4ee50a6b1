"""The ledger: entries, balances and prices; and of each call whose it is and what its providers charged.

Calls that have ended before are entered as one transfer, ``opening``, day by day.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

DAY_NS = 86_400_000_000_000
COLUMNS = ("tenant", "session", "client_user", "tags", "held", "price_id", "token_details", "operator_cost", "billed")
NUMBERS = ("held", "operator_cost")
INDEXES = (("by_session", ["session", "id"], "session IS NOT NULL"), ("tagged", ["id"], "tags IS NOT NULL"))


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("requests", sa.Column(name, sa.BigInteger if name in NUMBERS else sa.Text))
    for name, columns, condition in INDEXES:
        where = sa.text(condition)
        op.create_index(f"requests_{name}", "requests", columns, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "ledger_entries",
        sa.Column("transfer", sa.Text, primary_key=True),
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ledger_balances",
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "prices",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("first_at", sa.BigInteger, nullable=False),
    )
    _open()


def _open() -> None:
    """What earlier releases have recorded, and until which id."""
    ended = "FROM requests WHERE outcome IS NOT NULL AND cost > 0 GROUP BY 1, 2"
    day = f"created_at / {DAY_NS}"
    provider = "CASE WHEN provider = '' THEN 'operator' ELSE 'provider:' || provider END"
    for account, amount in (("'token:' || grant_id", "sum(cost)"), (provider, "-sum(cost)")):
        op.execute(f"INSERT INTO ledger_balances (account, day, amount) SELECT {account}, {day}, {amount} {ended}")
    op.execute(
        "INSERT INTO ledger_entries (transfer, account, amount, at, day) "
        f"SELECT 'opening:' || day, account, amount, day * CAST({DAY_NS} AS BIGINT), day FROM ledger_balances"
    )
    op.execute("INSERT INTO meta (key, value) SELECT 'ledger_begins', coalesce(max(id), '') FROM requests")


def downgrade() -> None:
    op.execute("DELETE FROM meta WHERE key = 'ledger_begins'")
    for table in ("prices", "ledger_balances", "ledger_entries"):
        op.drop_table(table)
    for name, _columns, _condition in INDEXES:
        op.drop_index(f"requests_{name}", "requests")
    for name in reversed(COLUMNS):
        op.drop_column("requests", name)
