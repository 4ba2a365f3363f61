"""Servers that CodeDance starts: a model with an OpenAI-compatible API, Prefect for one command."""
