"""Decoding of 16-bit colours, and results cached per image."""
