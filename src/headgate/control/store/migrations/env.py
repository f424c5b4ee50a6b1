"""Alembic's entry: run the migrations on the connection that ``store`` passes in.  There is no offline mode."""

from __future__ import annotations

from alembic import context

from headgate.control.store import database  # noqa: F401  (its tables are in the metadata)
from headgate.control.store.metadata import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
