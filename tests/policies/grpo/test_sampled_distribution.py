"""The gradient of training is that of the policy that samples: by enumeration of two tokens."""

from collections.abc import Callable

import pytest
import torch
from codedance.policies.models.token_model import sampling_logits
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.loss import clipped_loss

REWARDS = torch.tensor([1.0, 0.0, 5.0])  # the last token can never be sampled
ALLOWED = torch.tensor([True, True, False])
Scores = Callable[[torch.Tensor, float], torch.Tensor]


def as_sampled(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    return sampling_logits(logits.clone(), ALLOWED, temperature).log_softmax(dim=0)


def at_temperature_one(logits: torch.Tensor, _: float) -> torch.Tensor:
    return logits.log_softmax(dim=0)


def expected_loss_gradient(scores: Scores, temperature: float) -> torch.Tensor:
    """Return the gradient of the loss, expected over the tokens that are sampled."""
    logits = torch.tensor([0.7, -0.4, 0.2], requires_grad=True)
    drawn = as_sampled(logits.detach(), temperature).exp()
    new = scores(logits, temperature)[:2]
    losses = clipped_loss(new, new.detach(), REWARDS[:2], epsilon=0.2, epsilon_high=0.2)
    (found,) = torch.autograd.grad((drawn[:2] * losses).sum(), logits)
    return found


def expected_reward_gradient(temperature: float) -> torch.Tensor:
    """Return the gradient of the expected reward of the sampling policy, as a loss."""
    logits = torch.tensor([0.7, -0.4, 0.2], requires_grad=True)
    reward = (as_sampled(logits, temperature).exp() * REWARDS).sum()
    (found,) = torch.autograd.grad(-reward, logits)
    return found


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_the_expected_gradient_is_that_of_the_expected_reward(temperature):
    found = expected_loss_gradient(as_sampled, temperature)
    torch.testing.assert_close(found, expected_reward_gradient(temperature))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_scores_of_the_models_own_distribution_would_be_biased(temperature):
    found = expected_loss_gradient(at_temperature_one, temperature)
    assert (found - expected_reward_gradient(temperature)).abs().max() > 0.03


@pytest.mark.parametrize("settings", [{"top_p": 0.9}, {"top_k": 20}])
def test_training_refuses_to_cut_the_distribution(settings):
    with pytest.raises(ValueError, match=r"grpo\.top_p must be 1\.0 and grpo\.top_k 0"):
        GRPOConfig(**settings)
