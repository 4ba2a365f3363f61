"""Rewards of trajectories and of groups: the terms, their presets, evidence, and users' own terms.

They read what the sandbox recorded, never text that a model could have written; numpy only.
"""

from .terms import difficulty_factor, score_group, turn_returns

__all__ = ["difficulty_factor", "score_group", "turn_returns"]
