"""The ways from the command line to a gateway: over HTTP, or on its store."""
