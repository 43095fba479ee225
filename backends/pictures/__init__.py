"""Pictures: the only way in, and what a model says about places in them."""
