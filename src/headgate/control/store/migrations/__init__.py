"""How a store gets from any earlier release's schema to this one's.  `versions/` is only ever added to."""
