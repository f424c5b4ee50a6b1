"""Meaning: what the bytes of each API say.  One folder or file per API, pure; ``bridge`` joins them."""
