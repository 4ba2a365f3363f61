import math

import pytest
import torch
from codedance.policies.training.optimiser import Optimiser, Schedule
from torch import nn


def test_rate_rises_to_its_highest_and_falls_as_a_cosine():
    schedule = Schedule(1.0, steps=12, warmup_steps=2)
    assert [schedule.at(step) for step in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert schedule.at(7) == pytest.approx(0.5)  # half way between 2 and 12
    assert schedule.at(12) == pytest.approx(0.0)


def test_constant_rate_does_not_change():
    assert Schedule(0.3, steps=5, kind="constant").at(4) == 0.3


def one_weight() -> tuple[nn.Linear, Optimiser]:
    layer = nn.Linear(1, 1)
    schedule = Schedule(0.1, steps=10, kind="constant")
    return layer, Optimiser(layer, schedule, weight_decay=0.0, max_grad_norm=1.0)


def test_first_step_of_adam_moves_by_the_rate_against_the_gradient():
    layer, optimiser = one_weight()
    before = layer.weight.item()
    layer.weight.grad, layer.bias.grad = torch.tensor([[5.0]]), torch.tensor([0.0])
    assert optimiser.step(0) == {"grad_norm": 5.0, "lr": 0.1}
    assert layer.weight.item() == pytest.approx(before - 0.1, abs=1e-6)
    assert layer.weight.grad is None


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_gradients_that_are_not_finite_change_nothing(poison: float):
    layer, optimiser = one_weight()
    before = layer.weight.item()
    layer.weight.grad = torch.tensor([[poison]])
    with pytest.raises(FloatingPointError, match="step 4"):
        optimiser.step(3)
    assert layer.weight.item() == before
    assert layer.weight.grad is None
