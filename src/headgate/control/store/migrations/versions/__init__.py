"""One file per revision, numbered; the names are listed in ``store.revisions.REVISIONS``."""
