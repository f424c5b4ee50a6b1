"""The commands of the operator's nouns: aliases, models, prompts, providers, requests, tokens, usage, vault."""
