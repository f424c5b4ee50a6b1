"""The tables of users, their sessions and the audit log.

``migrations/`` lets no statement change or delete a row of ``audit``.
"""

from __future__ import annotations

from sqlalchemy import DDL, BigInteger, Boolean, Column, Index, Integer, LargeBinary, Table, Text, event

from headgate.control.store.metadata import metadata

# People who may call the admin API.  A user of an OIDC provider has no password; `issuer` and `subject` name them.
users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),  # public
    Column("name", Text, nullable=False),
    Column("name_key", Text, nullable=False, unique=True),  # lower case
    Column("email", Text),
    Column("email_key", Text, unique=True),
    Column("password", Text),  # argon2id, encoded with its salt and parameters
    Column("role", Text, nullable=False),
    Column("tenant", Text),  # of a tenant admin
    Column("disabled", Boolean, nullable=False),
    Column("issuer", Text),
    Column("subject", Text),
    Column("created_at", BigInteger, nullable=False),  # Unix ns, as every *_at
    Column("last_login_at", BigInteger),
)
Index("users_by_subject", users.c.issuer, users.c.subject, unique=True)

# The session id itself is nowhere: `digest` is its SHA-256.
sessions = Table(
    "sessions",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("id", Text, nullable=False, unique=True),  # public
    Column("user_id", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("agent", Text, nullable=False),  # the browser's User-Agent
    Column("created_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),  # up to a minute ago
    Column("expires_at", BigInteger, nullable=False),
)
Index("sessions_by_user", sessions.c.user_id)

# Every change.  `hash` is SHA-256 over the row's content and the hash of the row before (control/audit/chain.py).
audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("session", Text),  # sessions.id
    Column("address", Text, nullable=False),
    Column("noun", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("before", Text),  # JSON, without secrets
    Column("after", Text),
    Column("hash", LargeBinary, nullable=False),
)
Index("audit_by_object", audit.c.noun, audit.c.object, audit.c.seq)

# One row: the last of `audit`.  Its lock makes one chain of concurrent changes.
audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)


def _when_created(table: Table, dialect: str, *statements: str) -> None:
    """What a table made whole gets besides its columns, as ``migrations/`` gives it to others."""
    for statement in statements:
        ddl = DDL(statement).execute_if(dialect=dialect)  # type: ignore[no-untyped-call]  # SQLAlchemy has no types here
        event.listen(table, "after_create", ddl)


_REFUSAL = "the audit log is append-only"
_when_created(
    audit,
    "sqlite",
    *(
        f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
        for verb in ("UPDATE", "DELETE")
    ),
)
_when_created(
    audit,
    "postgresql",
    "CREATE OR REPLACE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS "
    f"'BEGIN RAISE EXCEPTION ''{_REFUSAL}''; END'",
    "CREATE TRIGGER audit_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
    "FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows()",
)
_when_created(audit_head, "sqlite", "INSERT INTO audit_head VALUES (1, 0, zeroblob(32))")
_when_created(audit_head, "postgresql", "INSERT INTO audit_head VALUES (1, 0, decode(repeat('00', 32), 'hex'))")
