"""Bodies: content codings undone, their form recognised, streams of any form brought into events.  Pure."""
