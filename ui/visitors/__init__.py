"""Who asks, what is theirs, and what they uploaded."""
