"""Rollouts: a policy's episodes in continuous batches, with lost episodes counted."""

from .runner import rollout

__all__ = ["rollout"]
