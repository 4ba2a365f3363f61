"""Charts and tables for the report, MLflow and the command line."""
