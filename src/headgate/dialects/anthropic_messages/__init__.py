"""The Anthropic Messages API, as its callers and its providers speak it (docs.anthropic.com/en/api/messages).

``request`` reads and writes requests, with ``to_chat`` and ``from_chat`` for their members; ``source`` reads answers,
``face`` writes them, ``errors`` is how the client reads a failure.
"""
