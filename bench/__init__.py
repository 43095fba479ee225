"""Measures the playground against what it is held to, side by side in one run: `python -m bench`."""
