"""Rollouts: episodes that a policy plays, batched continuously, with losses counted."""

from .runner import rollout

__all__ = ["rollout"]
