"""The targets that may serve a call, and their order.  Pure."""
