"""llama.cpp in a child process: the default engine of a machine without a GPU."""
