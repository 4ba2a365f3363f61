"""Policies without a model: the oracle, the teachers, and random replies."""
