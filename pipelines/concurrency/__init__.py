"""Locks between processes, and work repeated in a thread."""
