"""Addition of our TRL adapter to TRL's batch: each turn's advantage on its own tokens."""

import pytest
import torch
from codedance.envs.rewards.terms import group_turn_advantages
from codedance.envs.types import Tokens
from codedance.policies.adapters.trl_grpo import turnwise

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
