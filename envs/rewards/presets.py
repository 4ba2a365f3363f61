"""The reward presets: named settings of one reward function, with independent switches."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class RewardPreset:
    """All parameters of the reward.

    Attributes:
        name: Name of the preset.
        sequence: Kind of ``tool_sequence``: none, DeepEyes' bonus, or BAT.
        right_weight: Weight w of a right answer.
        wrong_weight: Weight w of a wrong answer.
        bonus: Reward under ``bonus`` for a right answer that used a tool.
        format_fault: Reward for a fault of form, added once.
        steepness: Steepness gamma of the difficulty factor.
        offset: Offset delta of the difficulty factor.
        penalty: Cost of a failed tool turn, before lambda.
        discount: Discount beta of the turn returns.
        turn_weight: Weight lambda of the turn reward and of the turn advantage; 0.0 disables both.
        turn_clip: Bound of z of the turn advantage, clipped to [-turn_clip, 0]; None for no
            clipping.
        counts_evidence: Whether only calls with evidence count, silent success being neutral.
        pays_unsolved: Whether a group without a right answer is rewarded for calls.
        charges_easy_calls: Whether every call costs where tools are discouraged.
        charges_hidden: Whether a call without evidence that handled an error of its own counts
            as a failed one.
        pays_padding: Whether calls with evidence beyond the first make up for a failed call.
        own_terms: User's own terms of this preset only, with their weights (`with_terms`).
    """

    name: str
    sequence: Literal["none", "bonus", "bat"] = "bat"
    right_weight: float = 1.5
    wrong_weight: float = 0.5
    bonus: float = 1.5
    format_fault: float = -0.2
    steepness: float = 4.0
    offset: float = 0.2
    penalty: float = 0.5
    discount: float = 0.2
    turn_weight: float = 0.2
    turn_clip: float | None = None
    counts_evidence: bool = False
    pays_unsolved: bool = True
    charges_easy_calls: bool = False
    charges_hidden: bool = False
    pays_padding: bool = True
    own_terms: tuple[tuple[str, float], ...] = ()


_BAT_PAPER = RewardPreset("bat_paper")
_BAT = replace(
    _BAT_PAPER,
    name="bat",
    turn_clip=3.0,
    counts_evidence=True,
    pays_unsolved=False,
    charges_easy_calls=True,
    charges_hidden=True,
    pays_padding=False,
)

PRESETS: dict[str, RewardPreset] = {
    preset.name: preset
    for preset in (
        RewardPreset("outcome", sequence="none", turn_weight=0.0),
        RewardPreset("tool_bonus", sequence="bonus", turn_weight=0.0),
        replace(_BAT, name="bat_sequence", turn_weight=0.0),
        _BAT,
        _BAT_PAPER,
    )
}


def reward_preset(reward: str | RewardPreset) -> RewardPreset:
    """Return the preset with a name; a preset is returned unchanged.

    Raises:
        ValueError: The name is unknown.
    """
    if isinstance(reward, RewardPreset):
        return reward
    if reward not in PRESETS:
        near = difflib.get_close_matches(reward, PRESETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown reward {reward!r}: one of {', '.join(PRESETS)}{hint}")
    return PRESETS[reward]
