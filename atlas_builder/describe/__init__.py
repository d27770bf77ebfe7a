"""What a unit's behaviours are about: tokens, labels and effects on the next token."""
