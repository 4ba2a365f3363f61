"""Policies without a model: oracle, teachers and random policy."""
