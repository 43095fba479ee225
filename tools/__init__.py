"""Commands for those who work on the playground; none of them is needed to run it."""
