"""Whether a call may begin, what it holds while it runs, and how it waits for a limit."""
