"""Tokens, tenants and budgets."""
