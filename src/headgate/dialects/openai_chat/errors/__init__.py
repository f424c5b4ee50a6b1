"""Foreign errors: read, classified, and written for the client."""
