"""Maintenance of a store: listing, verifying, pruning, and sweeping checkpoints."""
