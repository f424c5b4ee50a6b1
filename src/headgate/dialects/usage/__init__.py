"""Token counts: the spellings of servers, and the one meaning that they get."""
