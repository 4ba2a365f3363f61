"""Training: SFT, the optimizer, training checkpoints, and resource estimates per step."""
