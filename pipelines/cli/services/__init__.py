"""Commands for services: flows, ui, mlflow, serve, sandbox, doctor."""
