"""Requests to OpenAI-compatible servers: connection, retries, stop texts and token limits."""
