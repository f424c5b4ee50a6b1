"""The table of alerts (``control/telemetry``): what was raised, so that nothing is raised twice."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text

from headgate.control.store.metadata import metadata

# `level` is the highest that was raised for the subject within `scope` (a budget's period, a day).  It counts until
# `until`; NULL: for good, or until the state that it reports is over.
alerts = Table(
    "alerts",
    metadata,
    Column("id", Text, primary_key=True),  # ordered by time
    Column("at", BigInteger, nullable=False),  # Unix ns
    Column("type", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("level", Integer, nullable=False),
    Column("message", Text, nullable=False),
    Column("data", Text, nullable=False),  # JSON
    Column("until", BigInteger),  # Unix ns
    Column("pending", Text),  # JSON array of the webhooks that have not got it yet; NULL: none
    sqlite_with_rowid=False,
)
_WAITING = alerts.c.pending.is_not(None)
Index("alerts_pending", alerts.c.id, sqlite_where=_WAITING, postgresql_where=_WAITING)
