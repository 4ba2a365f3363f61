from dataclasses import replace

import pytest
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.groups import Group, score
from codedance.policies.training.grpo.metrics import step_metrics

from ..players import AbsentSandbox, trajectory


def scored(*siblings) -> Group:
    return score(siblings, GRPOConfig(reward="bat_paper"), sandbox=AbsentSandbox())


def test_metrics_by_hand():
    mixed = scored(
        trajectory(accuracy=1.0, blocks=["a", "b"]),
        trajectory(accuracy=0.0, blocks=["c"], fails=True),
        trajectory(accuracy=None),
    )
    flat = scored(trajectory(accuracy=1.0), trajectory(accuracy=1.0))
    metrics = step_metrics([mixed], [flat])
    assert metrics["accuracy"] == 3 / 4
    assert metrics["tool_calls/mean"] == 3 / 4
    assert metrics["tool_use"] == 2 / 4
    assert metrics["execution_success"] == pytest.approx(2 / 3)
    assert metrics["infrastructure_share"] == 1 / 5
    assert metrics["frac_reward_zero_std"] == 1 / 2
    assert (metrics["groups"], metrics["groups_redrawn"], metrics["groups_lost"]) == (2, 1, 0)
    # mu = ½ so d = 0.3: 0.3 * 1.5 * 2/2 for the right one, 0 of 1 calls for the wrong one.
    assert metrics["rewards/tool_sequence/mean"] == pytest.approx(0.45 / 4)
    assert metrics["rewards/tool_turn/mean"] == pytest.approx(-0.1 / 4)


def test_lost_sessions_are_counted_whether_the_episode_went_on_or_not():
    members = [trajectory(), trajectory(accuracy=None), trajectory(), trajectory()]
    losses = zip(members, (2, 1, 0, 0), strict=True)
    group = scored(*(replace(one, sessions_lost=lost) for one, lost in losses))
    assert step_metrics([group], [])["session_loss_share"] == 2 / 4


def test_missing_measurements_are_omitted():
    lost = scored(trajectory(accuracy=None), trajectory(accuracy=None))
    metrics = step_metrics([lost], [])
    assert metrics["infrastructure_share"] == 1.0
    assert metrics["groups_lost"] == 1
    assert "accuracy" not in metrics
    assert "execution_success" not in step_metrics([scored(trajectory(), trajectory())], [])
