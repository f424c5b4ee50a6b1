"""The one collection of tables that the store's modules share."""

from __future__ import annotations

from sqlalchemy import MetaData

metadata = MetaData()
