"""Tests of the documentation and of the command line's examples."""
