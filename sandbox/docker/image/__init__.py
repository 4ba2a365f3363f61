"""Build of the docker backend's image, from this machine's files or a registry's Python."""
