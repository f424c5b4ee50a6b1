"""Hooks: an operator's own code in the data process, between a client and the models it asks.  docs/hooks.md.

``api`` has what a hook is, ``rules`` the matching of values that come in pieces, ``secrets`` and ``personal`` the two
hooks that ship.  ``guard`` bounds what a hook may cost, ``chain`` calls the hooks of one call, ``loader`` finds them.
"""
