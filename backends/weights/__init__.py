"""Files of weights: where they come from, and that they are whole."""
