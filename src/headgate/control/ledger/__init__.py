"""The ledger: who owes what for which call.  Append-only, double-entry, in nano-USD."""
