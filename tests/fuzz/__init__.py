"""Bad input of every kind: a clear error or a sound result, never a traceback of ours."""
