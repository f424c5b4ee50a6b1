"""The Anthropic Messages API, as its callers and its providers speak it (docs.anthropic.com/en/api/messages).

``request`` reads and writes requests; ``to_chat`` and ``from_chat`` convert their members.  ``source`` reads answers,
and ``face`` writes them.  ``errors`` writes failures for the client.
"""
