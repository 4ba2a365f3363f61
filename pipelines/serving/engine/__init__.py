"""A vLLM server of our own: its environment, command line and process."""
