"""Export of trajectories in portable formats."""
