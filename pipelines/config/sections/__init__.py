"""Sections of a preset that stand for themselves."""
