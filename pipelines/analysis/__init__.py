"""Results: summaries, significance, comparison of models, and emergent code."""
