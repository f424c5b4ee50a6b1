"""How command lines are read, completed and refused."""
