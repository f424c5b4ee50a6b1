"""How answers are laid out in a terminal.  Values in, lines out."""
