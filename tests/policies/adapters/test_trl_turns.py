"""Our TRL adapter without TRL: rewards of siblings, and each turn's advantage on its tokens."""

import pytest
import torch
from codedance.envs.episode_factory import EpisodeHost, HostSettings
from codedance.envs.rewards.terms import group_turn_advantages
from codedance.envs.types import Tokens
from codedance.policies.adapters.trl_grpo import Rollouts, turnwise

from ..players import trajectory

SIBLINGS = 6


def test_a_turns_advantage_is_only_on_its_own_tokens():
    # Two prompt tokens, two of a turn that ran code, two of its reply, one that answers.
    turn_of = (-1, -1, 0, 0, -1, -1, 1)
    tokens = Tokens(tuple(range(7)), (0.0,) * 7, turn_of)
    fails = [True] + [False] * (SIBLINGS - 1)
    played = [trajectory(blocks=["look"], fails=one, tokens=tokens) for one in fails]
    whole = torch.linspace(-1.0, 1.0, SIBLINGS)
    batch = {"completion_ids": torch.zeros(SIBLINGS, 6), "advantages": whole}
    found = turnwise(batch, played, group_turn_advantages(played))

    (of_failure, _), *others = group_turn_advantages(played)
    assert of_failure < 0.0
    assert all(value == 0.0 for turns in others for value in turns)
    first = -1.0 + of_failure
    assert found[0].tolist() == pytest.approx([first, first, 0.0, 0.0, -1.0, 0.0])
    last = whole[-1].item()
    assert found[-1].tolist() == pytest.approx([last, last, 0.0, 0.0, last, 0.0])


def test_siblings_are_scored_together_and_a_lost_one_not_at_all(sandbox):
    rollouts = Rollouts(None, EpisodeHost(HostSettings(), sandbox=sandbox))
    rollouts._siblings = 3
    right, wrong, lost = (trajectory(accuracy=value) for value in (1.0, 0.0, None))
    assert rollouts.score([right, wrong, lost, wrong, wrong, lost]) == [
        1.0,
        0.0,
        None,
        0.0,
        0.0,
        None,
    ]
    assert [record["is_valid"] for record in rollouts.records] == [True, True, False] * 2
    assert rollouts.records[2]["reward_terms"] == {}
    assert len(rollouts.turn_advantages([right, wrong, lost])) == 3


def test_a_lost_episode_has_an_empty_mask(sandbox, tiny_model):
    policy = type("Policy", (), {"model": tiny_model})()
    rollouts = Rollouts(policy, EpisodeHost(HostSettings(), sandbox=sandbox))
    tokens = Tokens((5, 6, 7), (0.0, -0.1, -0.2), (-1, 0, 0))
    ids, _, mask, begin = rollouts._split(trajectory(tokens=tokens))
    assert (ids, mask, begin) == ([5, 6, 7], [0, 1, 1], 1)
    ids, _, mask, begin = rollouts._split(trajectory(accuracy=None, tokens=tokens))
    assert (ids, mask, begin) == ([5, 6, 7], [0, 0, 0], 1)
    ids, scores, mask, begin = rollouts._split(trajectory(accuracy=None))  # before its first reply
    assert len(ids) == len(scores) == len(mask) == begin + 1
    assert not any(mask)
