"""One call.  Read ``exchange`` first."""
