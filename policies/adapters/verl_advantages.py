"""GRPO's advantages for verl, in which trajectories lost to infrastructure do not count.

verl has no third outcome: a lost trajectory has a reward of 0, which counts in the mean of its
group. Our agent loop gives it an empty mask; this estimator leaves out what has one. Installing
CodeDance makes it known to every process of verl, as a plugin::

    algorithm.adv_estimator=codedance_grpo

Importing this module loads neither verl nor torch.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["NAME", "advantages_of_the_valid", "estimator"]  # noqa: F822  # pyright: ignore[reportUnsupportedDunderAll]

NAME = "codedance_grpo"


def advantages_of_the_valid(
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: NDArray[Any],
    config: Any = None,  # noqa: ANN401 - verl's
    **_: Any,  # noqa: ANN401 - what verl passes to estimators of other kinds
) -> tuple[Tensor, Tensor]:
    """Return verl's own GRPO advantages of the valid trajectories, and 0 for the others.

    A trajectory whose siblings are all lost gets 0, too: there is nothing to compare it with.

    Args:
        token_level_rewards: Rewards, ``(trajectories, tokens)``.
        response_mask: Ids that the policy wrote, ``(trajectories, tokens)``; none in a lost one.
        index: Group of each trajectory, ``(trajectories,)``.
        config: verl's settings of the algorithm.

    Returns:
        Advantages and returns, the same, ``(trajectories, tokens)``.
    """
    import torch

    core: Any = import_module("verl.trainer.ppo.core_algos")
    is_valid = response_mask.bool().any(dim=-1).tolist()
    groups = index.tolist()
    valid = Counter(group for group, one in zip(groups, is_valid, strict=True) if one)
    total = Counter(groups)
    rows = [
        row
        for row, group in enumerate(groups)
        if is_valid[row] and (valid[group] > 1 or total[group] == 1)
    ]
    advantages = torch.zeros_like(token_level_rewards)
    if rows:
        by_std = True if config is None else config.get("norm_adv_by_std_in_grpo", True)
        own, _returns = core.compute_grpo_outcome_advantage(
            token_level_rewards[rows],
            response_mask[rows],
            index[rows],
            norm_adv_by_std_in_grpo=by_std,
        )
        advantages[rows] = own
    return advantages, advantages


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the estimator, registered on first access
    if name != "estimator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _registered()


@cache
def _registered() -> Any:  # noqa: ANN401 - a function, as verl returns it
    core: Any = import_module("verl.trainer.ppo.core_algos")
    return core.register_adv_est(NAME)(advantages_of_the_valid)
