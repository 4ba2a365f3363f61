"""The Docker backend: one container per sandbox, in which the same worker runs."""
