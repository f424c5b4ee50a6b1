"""The commands of the operator's nouns: aliases, models, providers, requests, tokens, usage, vault."""
