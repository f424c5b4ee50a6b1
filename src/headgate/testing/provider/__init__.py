"""The built-in provider: an OpenAI-compatible server that can also misbehave."""
