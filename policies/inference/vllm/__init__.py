"""Rollouts on vLLM servers: exact token ids in and out, over HTTP alone."""
