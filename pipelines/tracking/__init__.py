"""Experiment tracking: events sent to MLflow, and the metrics files of a run's folder."""
