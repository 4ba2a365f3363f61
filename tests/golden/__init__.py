"""Digests that must not change unnoticed: episodes, weights, schemas, public names."""
