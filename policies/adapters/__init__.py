"""The environment and its sandbox for other trainers: verifiers, verl, stable-baselines3."""
