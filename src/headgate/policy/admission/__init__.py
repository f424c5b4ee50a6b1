"""Whether a call may run now, and what is set aside for it.  Pure."""
