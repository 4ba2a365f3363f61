"""A vLLM server of our own: its environment, its command line, its life."""
