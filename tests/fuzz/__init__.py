"""Fuzz tests: any input yields a clear error or a valid result, never a traceback."""
