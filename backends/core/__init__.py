"""The vocabulary that every part speaks, and what can go wrong. Imports nothing else of the playground."""
