"""Servers that we start: a model behind the OpenAI protocol, and Prefect for one command."""
