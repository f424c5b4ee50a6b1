"""Credentials: tokens, the vault, secret header values."""
