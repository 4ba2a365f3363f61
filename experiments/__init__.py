"""Experiments on the paper's claims: protocols, runs and results (README.md)."""
