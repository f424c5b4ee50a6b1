"""The journal's way into the store: segments, records, rows, roll-ups, the call log."""
