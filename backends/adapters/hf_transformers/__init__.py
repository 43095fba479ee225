"""transformers in this process: the engine of a machine with a GPU."""
