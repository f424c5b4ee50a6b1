"""Which targets may serve a call, and in which order.  Pure."""
