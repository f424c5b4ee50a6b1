"""The drivers of calls on the event loop: turns, fibers, the wheel of deadlines."""
