"""Experiments on the paper's claims: protocols, their runs, and what came of them (README.md)."""
