"""The tables of the vault beside the accounts: data keys, and invites of contributors."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, LargeBinary, Table, Text

from headgate.control.store.metadata import metadata

# The keys that seal what is secret in the other tables, wrapped with the master key (identity/vault.py).  The newest
# seals, every one opens.
data_keys = Table(
    "data_keys",
    metadata,
    Column("id", Text, primary_key=True),  # public
    Column("wrapped", LargeBinary, nullable=False),
    Column("wrapper", Text, nullable=False),  # the master key's id
    Column("created_at", BigInteger, nullable=False),
)

# Links with which others put a key into the vault.  A link's secret is nowhere: `digest` is its HMAC-SHA256 under the
# instance key, and `withdrawal` that of the link that removes the key again.
invites = Table(
    "invites",
    metadata,
    Column("id", Text, primary_key=True),  # public
    Column("digest", LargeBinary, nullable=False),
    Column("provider", Text, nullable=False),
    Column("label", Text, nullable=False),  # of the account that it makes
    Column("note", Text, nullable=False),  # for the contributor
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("account", Text),  # that it made, and when: another one may have that id by now
    Column("account_at", BigInteger),
    Column("withdrawal", LargeBinary),
    Column("withdrawn_at", BigInteger),
)
