"""Metrics of a GRPO step; names as in TRL where TRL has the metric."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....envs.rewards.terms import is_scored
from ....envs.types import Ending, Trajectory

if TYPE_CHECKING:  # it imports torch
    from .groups import Group


def step_metrics(kept: Sequence[Group], replaced: Sequence[Group]) -> dict[str, float]:
    """Compute the metrics of all trajectories of a step, replaced groups included.

    A mean over no values (no trajectory scored, no code run) is left out.
    """
    groups = [*kept, *replaced]
    everything = [one for group in groups for one in group.trajectories]
    metrics = {
        "groups": float(len(groups)),
        "groups_lost": float(sum(group.is_lost for group in groups)),
        "groups_redrawn": float(len(replaced)),
        "frac_reward_zero_std": _share([not any(group.advantages) for group in groups]),
    }
    return metrics | trajectory_metrics(everything)


def trajectory_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Compute the metrics of a step that need no groups.

    Args:
        trajectories: At least one trajectory, of any tasks.
    """
    metrics = {
        "infrastructure_share": _share([not one.is_valid for one in trajectories]),
        "session_loss_share": _share([one.sessions_lost > 0 for one in trajectories]),
    }
    if scored := [one for one in trajectories if is_scored(one)]:
        metrics |= _rewards(scored) | _behaviour(scored)
    return metrics


def _rewards(scored: Sequence[Trajectory]) -> dict[str, float]:
    metrics = {"reward": _mean([one.reward or 0.0 for one in scored])}
    for name in scored[0].reward_terms:
        values = [one.reward_terms[name] or 0.0 for one in scored]
        metrics[f"rewards/{name}/mean"] = _mean(values)
        metrics[f"rewards/{name}/std"] = statistics.pstdev(values)
    return metrics


def _behaviour(scored: Sequence[Trajectory]) -> dict[str, float]:
    calls = [turn for one in scored for turn in one.tool_turns]
    metrics = {
        "accuracy": _mean([one.accuracy or 0.0 for one in scored]),
        "tool_calls/mean": len(calls) / len(scored),
        "tool_use": _share([bool(one.tool_turns) for one in scored]),
        "turns/mean": _mean([float(len(one.turns)) for one in scored]),
    }
    if calls:
        metrics["execution_success"] = _share([not turn.has_failed for turn in calls])
    for ending in Ending:
        if ending is not Ending.INFRASTRUCTURE:
            metrics[f"endings/{ending}"] = _share([one.ending is ending for one in scored])
    return metrics | _tokens(scored)


def _tokens(scored: Sequence[Trajectory]) -> dict[str, float]:
    """Compute token metrics; entropy is estimated by the mean -log p of the drawn tokens."""
    with_tokens = [one.tokens for one in scored if one.tokens is not None]
    own = [
        value
        for tokens in with_tokens
        for value, turn in zip(tokens.log_probabilities, tokens.turn_of, strict=True)
        if turn >= 0
    ]
    if not own:
        return {}
    lengths = [sum(tokens.mask) for tokens in with_tokens]
    return {
        "entropy": -_mean(own),
        "completion_length/mean": _mean([float(length) for length in lengths]),
        "completion_length/max": float(max(lengths)),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _share(claims: Sequence[bool]) -> float:
    return sum(claims) / len(claims)
