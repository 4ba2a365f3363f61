"""Training: SFT, the optimizer, checkpoints of a training, and what a step costs."""
