"""The tabs: components, what they do, and the named endpoints."""
