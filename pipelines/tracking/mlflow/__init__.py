"""Writing to MLflow: runs, metrics, models, traces and artifacts."""
