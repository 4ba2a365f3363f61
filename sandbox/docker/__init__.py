"""The Docker backend: one container per sandbox, that runs the same worker."""
