"""Benchmarks against alternatives: `make bench`, `python -m benchmarks.rollout`."""
