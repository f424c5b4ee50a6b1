"""The ledger's tables, and the prices that receipts name (``control/ledger``).  Rows are added, never changed.

``ledger_balances`` are sums of ``ledger_entries``, kept in the transaction that writes these.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, Table, Text

from headgate.control.store.metadata import metadata

# A transfer is `<receipt id>:<phase>` (ledger/postings.py); its entries add up to 0.
ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("transfer", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("amount", BigInteger, nullable=False),  # nano-USD; debits are positive
    Column("at", BigInteger, nullable=False),  # Unix ns of what is posted
    Column("day", Integer, nullable=False),  # of the receipt: days since 1970-01-01 UTC
    sqlite_with_rowid=False,
)

ledger_balances = Table(
    "ledger_balances",
    metadata,
    Column("account", Text, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("amount", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Every price that calls were charged at.  `id` is a digest of `body`, the JSON of model.Price.
prices = Table(
    "prices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("body", Text, nullable=False),
    Column("first_at", BigInteger, nullable=False),  # Unix ns of when it was first in force
)
