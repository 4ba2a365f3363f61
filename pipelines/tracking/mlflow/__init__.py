"""How MLflow is told: its runs, metrics, models, traces and artifacts."""
