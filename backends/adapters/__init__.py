"""One file an engine, imported by the registry alone, lazily; a heavy library is imported by its adapter alone."""
