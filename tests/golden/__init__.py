"""Digests of what must not change unnoticed: episodes, weights, schemas, public names."""
