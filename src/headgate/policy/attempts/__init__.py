"""The attempts of a call: the order of targets, the next attempt, the continuation of a stream.  Pure."""
