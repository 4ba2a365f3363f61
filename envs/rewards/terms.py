"""Rewards as pure functions of recorded events: terms per trajectory, and returns per turn.

BAT is the balanced adaptive tool-call reward (CodeDance, arXiv 2512.17312). `bat_paper` is the
published form; `bat` deviates from it, with a switch in `RewardPreset` for each deviation:

* `counts_evidence`: a call counts only with output that is new and depends on the image; a
  silent block that succeeds is neutral where tools are encouraged.
* `pays_unsolved` off: a group without a right answer is not rewarded for calls.
* `charges_easy_calls`: where tools are discouraged every call costs, failed or not.
* `charges_hidden`: a call that handled an error of its own and has no evidence counts as failed, in
  ``tool_sequence`` and in ``tool_turn``.
* `pays_padding` off: where a call failed, all calls with evidence count as one.
* `turn_clip`: a turn without failure gets no positive advantage.

Deviations from the official code, in both: success is read from the sandbox's record, not from a
text; the group's accuracy is its accuracy, not its mean score; turn returns are standardised over
the group, not the batch; unscored values (None, NaN) stay None and enter no statistic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..types import Ending, Trajectory, Turn
from .evidence import new_parts
from .presets import RewardPreset, reward_preset
from .registry import added_terms

TERMS = ("accuracy", "format", "tool_sequence", "tool_turn")
"""The terms of every preset; a user's own terms follow by name."""

SMALLEST_SPREAD = 1e-6
"""Spread of returns below which they count as equal."""

Terms = dict[str, float | None]


def difficulty_factor(accuracy: float, *, steepness: float = 4.0, offset: float = 0.2) -> float:
    """Return d(mu) = (1 + tanh(gamma(0.5 - mu)))/2 - delta: above 0 to encourage tool calls.

    Args:
        accuracy: Accuracy mu of the group, 0 to 1.
        steepness: Steepness gamma.
        offset: Offset delta.

    >>> round(difficulty_factor(0.5), 12)
    0.3
    """
    if not 0.0 <= accuracy <= 1.0:
        raise ValueError(f"an accuracy lies between 0 and 1, got {accuracy!r}")
    return (1.0 + math.tanh(steepness * (0.5 - accuracy))) / 2.0 - offset


def turn_returns(
    failed: Sequence[bool], *, discount: float = 0.2, penalty: float = 0.5
) -> list[float]:
    """Return R_t = r_t + beta R_{t+1} of each tool turn in order; r_t = -penalty where it failed.

    >>> turn_returns([True, True])
    [-0.6, -0.5]
    """
    returns: list[float] = []
    following = 0.0
    for has_failed in reversed(failed):
        following = (-penalty if has_failed else 0.0) + discount * following
        returns.append(following)
    return returns[::-1]


def is_scored(trajectory: Trajectory) -> bool:
    """Whether the accuracy is known: neither an infrastructure failure nor a failed judge."""
    accuracy = trajectory.accuracy
    return trajectory.is_valid and accuracy is not None and not math.isnan(accuracy)


def group_accuracy(trajectories: Sequence[Trajectory]) -> float | None:
    """Return mu, the mean accuracy of the scored trajectories; None without one."""
    accuracies = [_accuracy(one) for one in trajectories if is_scored(one)]
    return sum(accuracies) / len(accuracies) if accuracies else None


def score_group(
    trajectories: Sequence[Trajectory], *, reward: str | RewardPreset = "bat"
) -> list[Terms]:
    """Return the reward terms of each trajectory of a group, given the group's accuracy.

    The keys are `TERMS` and the user's own terms. Advantages within the group are computed from
    `group_reward` (all but ``tool_turn``) and `group_turn_advantages`.

    Args:
        trajectories: Trajectories of one task, with `Turn.has_evidence` recorded
            (`record_evidence`).
        reward: Reward preset or its name.

    Raises:
        ValueError: The preset needs evidence that was not recorded, or is unknown.
    """
    preset = reward_preset(reward)
    accuracy = group_accuracy(trajectories)
    return [
        score_trajectory(one, group_accuracy=0.0 if accuracy is None else accuracy, reward=preset)
        for one in trajectories
    ]


def score_trajectory(
    trajectory: Trajectory, *, group_accuracy: float, reward: str | RewardPreset = "bat"
) -> Terms:
    """Return the reward terms of one trajectory; all None where it was not scored.

    Args:
        trajectory: Trajectory, with evidence recorded where `needs_evidence` is True.
        group_accuracy: Accuracy mu of the group; outside a group the task's own pass rate, ½ where
            unknown.
        reward: Reward preset or its name.
    """
    preset = reward_preset(reward)
    own = added_terms(preset)
    if not is_scored(trajectory):
        return dict.fromkeys((*TERMS, *own))
    failures = sum(_failures(trajectory, preset)) if preset.turn_weight else 0
    terms: Terms = {
        "accuracy": _accuracy(trajectory),
        "format": preset.format_fault if has_format_fault(trajectory) else 0.0,
        "tool_sequence": _tool_sequence(trajectory, group_accuracy, preset),
        "tool_turn": 0.0 - preset.turn_weight * preset.penalty * failures,
    }
    return terms | {name: term(trajectory) for name, term in own.items()}


def hidden_charge(trajectory: Trajectory, preset: RewardPreset) -> float:
    """Return the part of ``tool_turn`` that is due to failures which the calls hide."""
    if not (is_scored(trajectory) and preset.turn_weight):
        return 0.0
    failed = sum(turn.has_failed for turn in trajectory.tool_turns)
    hidden = sum(_failures(trajectory, preset)) - failed
    return 0.0 - preset.turn_weight * preset.penalty * hidden


def group_reward(terms: Terms) -> float:
    """Return the scalar reward within a group: all terms but ``tool_turn``; NaN if unscored."""
    values = [value for name, value in terms.items() if name != "tool_turn"]
    return math.nan if None in values else math.fsum(v for v in values if v is not None)


def group_turn_advantages(
    trajectories: Sequence[Trajectory], *, reward: str | RewardPreset = "bat"
) -> list[list[float]]:
    """Return A_turn = lambda z per turn of every trajectory of a group; 0 for turns without a tool.

    z is R_t standardised over the tool turns of the group's scored trajectories (population std;
    0 where they are equal), clipped by `bat` to [-3, 0]. With fewer than two scored trajectories
    all are 0.
    """
    preset = reward_preset(reward)
    scored = [is_scored(one) for one in trajectories]
    returns = [
        _returns(one, preset) if is_one_scored and sum(scored) > 1 else []
        for one, is_one_scored in zip(trajectories, scored, strict=True)
    ]
    pooled = np.array([value for values in returns for value in values], dtype=np.float64)
    advantages: list[list[float]] = []
    for one, values in zip(trajectories, returns, strict=True):
        scaled = iter(_turn_advantage(value, pooled, preset) for value in values)
        advantages.append([next(scaled, 0.0) if turn.is_tool_turn else 0.0 for turn in one.turns])
    return advantages


def has_format_fault(trajectory: Trajectory) -> bool:
    """Whether any turn has a fault of form, or the episode does not end with an answer."""
    if trajectory.ending is not Ending.ANSWERED:
        return True
    return any(turn.action.format_fault is not None for turn in trajectory.turns)


def needs_evidence(
    trajectory: Trajectory, *, group_accuracy: float, reward: str | RewardPreset = "bat"
) -> bool:
    """Whether the terms depend on evidence that was not recorded yet."""
    preset = reward_preset(reward)
    if not is_scored(trajectory):
        return False
    calls = zip(trajectory.tool_turns, _evidence(trajectory), strict=True)
    unknown = [turn for turn, has in calls if has is None]
    if preset.counts_evidence and _counts_successes(group_accuracy, preset) and unknown:
        return True
    return preset.charges_hidden and preset.turn_weight > 0 and any(map(_has_handled, unknown))


def _tool_sequence(trajectory: Trajectory, accuracy: float, preset: RewardPreset) -> float:
    calls = trajectory.tool_turns
    if not calls or preset.sequence == "none":
        return 0.0
    is_right = _accuracy(trajectory) > 0.5
    if preset.sequence == "bonus":
        return preset.bonus if is_right else 0.0
    if _pays_nothing(accuracy, preset):
        return 0.0
    factor = _factor(accuracy, preset)
    weighted = factor * (preset.right_weight if is_right else preset.wrong_weight)
    if not _counts_successes(accuracy, preset):
        return weighted * (2.0 - 2.0 ** (1 - len(calls)))
    return weighted * _share_of_success(trajectory, preset, factor) + 0.0


def _counts_successes(accuracy: float, preset: RewardPreset) -> bool:
    """Whether ``tool_sequence`` depends on which calls succeeded, not only on their number."""
    if preset.sequence != "bat" or _pays_nothing(accuracy, preset):
        return False
    return not (preset.charges_easy_calls and _factor(accuracy, preset) < 0)


def _share_of_success(trajectory: Trajectory, preset: RewardPreset, factor: float) -> float:
    """Return S/N: the share of calls that succeeded, or that have evidence."""
    calls = trajectory.tool_turns
    if not preset.counts_evidence:
        return sum(not turn.has_failed for turn in calls) / len(calls)
    failed = _failures(trajectory, preset)
    counted = [
        _certain(trajectory, has)
        for turn, has, is_one in zip(calls, _evidence(trajectory), failed, strict=True)
        if factor < 0 or is_one or not _is_silent(turn)
    ]
    useful, useless = sum(counted), len(counted) - sum(counted)
    if any(failed) and not preset.pays_padding:
        useful = min(useful, 1)
    return useful / (useful + useless) if useful else 0.0


def _failures(trajectory: Trajectory, preset: RewardPreset) -> list[bool]:
    """Return whether each tool turn counts as failed: it failed, or hides that it did."""
    calls = trajectory.tool_turns
    if not (preset.charges_hidden and any(map(_has_handled, calls))):
        return [turn.has_failed for turn in calls]
    return [
        turn.has_failed or (_has_handled(turn) and not _certain(trajectory, has))
        for turn, has in zip(calls, _evidence(trajectory), strict=True)
    ]


def _has_handled(turn: Turn) -> bool:
    return turn.execution is not None and turn.execution.has_handled_error


def _evidence(trajectory: Trajectory) -> list[bool | None]:
    """Return whether each tool turn has evidence; None where not checked."""
    calls = trajectory.tool_turns
    if all(turn.has_failed or turn.has_evidence is not None for turn in calls):
        return [False if turn.has_failed else turn.has_evidence for turn in calls]
    found: list[bool | None] = []
    for turn, parts in zip(calls, new_parts(trajectory), strict=True):
        if turn.has_failed or (turn.has_evidence is None and not parts):
            found.append(False)
        elif turn.has_evidence is None and not trajectory.needs_picture:
            found.append(True)
        else:
            found.append(turn.has_evidence)
    return found


def _certain(trajectory: Trajectory, has_evidence: bool | None) -> bool:
    if has_evidence is None:
        raise ValueError(
            f"a tool turn of {trajectory.task_id} has no evidence recorded; "
            "call record_evidence on the trajectory before it is scored"
        )
    return has_evidence


def _is_silent(turn: Turn) -> bool:
    return turn.execution is not None and turn.execution.is_silent


def _factor(accuracy: float, preset: RewardPreset) -> float:
    return difficulty_factor(accuracy, steepness=preset.steepness, offset=preset.offset)


def _pays_nothing(accuracy: float, preset: RewardPreset) -> bool:
    return accuracy == 0.0 and not preset.pays_unsolved


def _accuracy(trajectory: Trajectory) -> float:
    accuracy = trajectory.accuracy
    if accuracy is None or not 0.0 <= accuracy <= 1.0:
        raise ValueError(f"{trajectory.task_id}: accuracy is 0 to 1 or None, got {accuracy!r}")
    return float(accuracy)


def _returns(trajectory: Trajectory, preset: RewardPreset) -> list[float]:
    if not preset.turn_weight:
        return [0.0] * len(trajectory.tool_turns)
    failed = _failures(trajectory, preset)
    return turn_returns(failed, discount=preset.discount, penalty=preset.penalty)


def _turn_advantage(value: float, pooled: np.ndarray, preset: RewardPreset) -> float:
    if float(np.ptp(pooled)) < SMALLEST_SPREAD:
        return 0.0
    z = (value - float(pooled.mean())) / float(pooled.std())
    if preset.turn_clip is not None:
        z = min(max(z, -preset.turn_clip), 0.0)
    return preset.turn_weight * z
