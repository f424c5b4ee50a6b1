"""What is learnt by asking: how targets and accounts fare, whose prompt cache is where.  Pure."""
