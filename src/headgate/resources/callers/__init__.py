"""Who may call and how much: tokens, the tenants above them, groups of calls, and children of tokens."""
