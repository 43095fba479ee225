"""What a stranger meets: every route of ours, and who may use it."""
