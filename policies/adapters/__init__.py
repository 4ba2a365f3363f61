"""Adapters of the environment for other trainers: verifiers, verl, Stable-Baselines3."""
