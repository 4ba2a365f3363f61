"""Charts and tables for the report, for MLflow and for the command line."""
