"""Device layouts, multiple processes, and signals."""
