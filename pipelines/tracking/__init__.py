"""What is told to MLflow, and the files of a run's folder that hold it."""
