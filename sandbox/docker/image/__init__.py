"""Makes the docker backend's image, from this machine's files or from a registry's Python."""
