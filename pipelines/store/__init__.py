"""The trajectory store: tasks, trajectories, turns, executions, scores, lineage, images."""
