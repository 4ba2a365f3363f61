"""What things cost, beside what others use: `make bench`, `python -m benchmarks.rollout`."""
