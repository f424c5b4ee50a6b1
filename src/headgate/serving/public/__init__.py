"""The paths that clients may ask, and the catalog that they read."""
