"""Trajectories in others' formats."""
