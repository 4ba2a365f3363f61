"""Rewards of trajectories and groups: terms, presets, evidence, and users' own terms.

They read the sandbox's records, never text that a model could have written; numpy only.
"""

from .terms import difficulty_factor, score_group, turn_returns

__all__ = ["difficulty_factor", "score_group", "turn_returns"]
