"""The knowledge from earlier attempts: health of targets and accounts, places of prompt caches.  Pure."""
