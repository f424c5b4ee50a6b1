"""Headgate: an OpenAI-compatible gateway for language models, streaming-first."""

__version__ = "0.1.0"
