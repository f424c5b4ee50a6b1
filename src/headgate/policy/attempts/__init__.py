"""What follows an attempt: the order of targets, the next one, whether a stream may go on.  Pure."""
