"""Decisions.  Pure: no I/O; ``now`` is an argument."""
