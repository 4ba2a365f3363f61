"""Commands around services: flows, ui, mlflow, serve, sandbox, doctor."""
