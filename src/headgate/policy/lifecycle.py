"""The states of a call, as a table.  A transition that is not in the table cannot happen.

::

    RECEIVED ─admit─▶ ADMITTED ─try─▶ TRYING ─commit─▶ COMMITTED ─finish─▶ DONE
        │                 │         ▲  │  │              ▲  │
        │                 │         └try  └finish▶ DONE  └try (a continuation)
        │                 │                                 ├─fail──▶ FAILED      (an error event, no [DONE])
        └─refuse▶ REFUSED └─fail─▶ FAILED ◀─fail─ TRYING    └─leave─▶ ABANDONED   (the client has gone)

A whole (non-streamed) answer goes from TRYING to DONE: its head and its end are one write.  A stream whose head is
sent early (``early_commit_s``) while the call waits for its first attempt goes from ADMITTED to COMMITTED.  Where it
waits in a queue it stays RECEIVED: it may still be refused.
"""

from __future__ import annotations

RECEIVED, ADMITTED, TRYING, COMMITTED = "received", "admitted", "trying", "committed"
DONE, FAILED, ABANDONED, REFUSED = "done", "failed", "abandoned", "refused"
ENDS = frozenset((DONE, FAILED, ABANDONED, REFUSED))

TABLE = {
    (RECEIVED, "admit"): ADMITTED,
    (RECEIVED, "refuse"): REFUSED,
    (RECEIVED, "leave"): ABANDONED,
    (RECEIVED, "commit"): RECEIVED,
    (ADMITTED, "try"): TRYING,
    (ADMITTED, "commit"): COMMITTED,
    (ADMITTED, "fail"): FAILED,
    (ADMITTED, "leave"): ABANDONED,
    (TRYING, "try"): TRYING,
    (TRYING, "commit"): COMMITTED,
    (TRYING, "finish"): DONE,
    (TRYING, "fail"): FAILED,
    (TRYING, "leave"): ABANDONED,
    (COMMITTED, "try"): COMMITTED,
    (COMMITTED, "finish"): DONE,
    (COMMITTED, "fail"): FAILED,
    (COMMITTED, "leave"): ABANDONED,
}

"""(state, event) → state.  A KeyError is what cannot happen: a bug of ours, never of a peer."""
