"""What the operator keeps in the store, and how it changes."""
