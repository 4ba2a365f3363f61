"""Conversion of deep colours to RGB, and results that are kept once per image."""
