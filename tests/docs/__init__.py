"""The documentation and the examples of the command line hold."""
