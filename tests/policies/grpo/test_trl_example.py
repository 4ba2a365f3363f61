"""Addition of examples/trl_grpo.py to TRL's batch: each turn's advantage on its own tokens."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from codedance.envs.rewards.terms import group_turn_advantages
from codedance.envs.types import Tokens

from ..players import trajectory

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as when it is run from there
    yield importlib.import_module("trl_grpo")
    sys.modules.pop("trl_grpo")


@pytest.mark.slow
def test_a_turns_advantage_is_only_on_its_own_tokens(example):
    # Two prompt tokens, two of a turn that ran code, two of its reply, one that answers.
    turn_of = (-1, -1, 0, 0, -1, -1, 1)
    tokens = Tokens(tuple(range(7)), (0.0,) * 7, turn_of)
    fails = [True] + [False] * (example.SIBLINGS - 1)
    played = [trajectory(blocks=["look"], fails=one, tokens=tokens) for one in fails]
    whole = torch.linspace(-1.0, 1.0, example.SIBLINGS)
    batch = {"completion_ids": torch.zeros(example.SIBLINGS, 6), "advantages": whole}
    found = example.turnwise(batch, played)

    (of_failure, _), *others = group_turn_advantages(played)
    assert of_failure < 0.0
    assert all(value == 0.0 for turns in others for value in turns)
    first = -1.0 + of_failure
    assert found[0].tolist() == pytest.approx([first, first, 0.0, 0.0, -1.0, 0.0])
    last = whole[-1].item()
    assert found[-1].tolist() == pytest.approx([last, last, 0.0, 0.0, last, 0.0])
