"""Programs that visual reasoners write, and plain Python to compare the sandbox with."""
