"""The teacher's term has the gradient of the reverse KL divergence, and is never 0 by accident."""

import math
from collections.abc import Callable

import pytest
import torch
from codedance.policies.models.token_model import sampling_logits
from codedance.policies.training.grpo.distillation.term import Divergence, distillation_advantages
from codedance.policies.training.grpo.loss import clipped_loss

ALLOWED = torch.tensor([True, True, False])  # the last token can never be sampled
STUDENT, TEACHER = [0.7, -0.4, 0.2], [-0.3, 0.9, 1.5]
Losses = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def scores(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return the log-probabilities of both tokens that can be sampled."""
    return sampling_logits(logits.clone(), ALLOWED, temperature).log_softmax(dim=-1)[..., :2]


def loss(new: torch.Tensor, teacher: torch.Tensor, weight: float = 1.0) -> torch.Tensor:
    advantages, _ = distillation_advantages(new.detach(), teacher, weight=weight)
    return clipped_loss(new, new.detach(), advantages, epsilon=0.2, epsilon_high=0.2)


def divergence(own: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return (own.exp() * (own - teacher)).sum(dim=-1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_the_expected_gradient_is_that_of_the_reverse_divergence(temperature):
    logits = torch.tensor(STUDENT, requires_grad=True)
    new, teacher = scores(logits, temperature), scores(torch.tensor(TEACHER), temperature)
    (found,) = torch.autograd.grad((new.detach().exp() * loss(new, teacher)).sum(), logits)
    exact = divergence(scores(logits, temperature), teacher)
    (expected,) = torch.autograd.grad(exact, logits)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(found, expected)


def test_what_a_served_teacher_keeps_for_other_ids_changes_no_expected_gradient():
    """vLLM scores prompts without the bias: all its scores are lower by the same amount."""
    logits = torch.tensor(STUDENT, requires_grad=True)
    new = scores(logits)
    whole = torch.tensor(TEACHER).log_softmax(dim=0)[:2]
    assert math.log(float(whole.exp().sum())) < -0.5
    (found,) = torch.autograd.grad((new.detach().exp() * loss(new, whole)).sum(), logits)
    (expected,) = torch.autograd.grad(
        divergence(scores(logits), scores(torch.tensor(TEACHER))), logits
    )
    torch.testing.assert_close(found, expected)


def test_over_two_tokens_it_is_that_of_the_divergence_in_the_contexts_that_are_visited():
    """The second token's distribution depends on the first; contexts are taken as given."""
    first = torch.tensor(STUDENT, requires_grad=True)
    second = torch.tensor([STUDENT, [-1.0, 0.3, 0.0]], requires_grad=True)
    teachers = [scores(torch.tensor(one)) for one in (TEACHER, [TEACHER, [0.0, 0.5, 0.1]])]
    news = [scores(one) for one in (first, second)]
    reached = news[0].detach().exp()
    whole = reached[:, None] * news[1].detach().exp()  # of both tokens, (first, second)
    losses = loss(news[0], teachers[0])[:, None] + loss(news[1], teachers[1])
    found = torch.autograd.grad((whole * losses).sum(), (first, second))
    exact = divergence(scores(first), teachers[0])
    exact = exact + (reached * divergence(scores(second), teachers[1])).sum()
    expected = torch.autograd.grad(exact, (first, second))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_an_equal_teacher_adds_nothing():
    own = torch.tensor([-0.5, -2.0])
    advantages, found = distillation_advantages(own, own.clone(), weight=3.0)
    assert advantages.tolist() == [0.0, 0.0]
    assert found == Divergence(2, 0.0)


def test_tokens_without_a_score_are_counted_apart_from_agreement():
    own, teacher = torch.tensor([-1.0, -2.0, -1.0]), torch.tensor([-2.5, torch.nan, -0.5])
    advantages, found = distillation_advantages(own, teacher, weight=2.0)
    assert advantages.tolist() == [-3.0, 0.0, 1.0]
    assert found == Divergence(2, 1.0)
    assert found.joined(Divergence(2, 2.0)).metrics() == {"distillation/kl": 0.75}
    assert Divergence().metrics() == {}


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_expected_gradient_is_that_of_trls_reverse_divergence(temperature):
    """TRL's DistillationTrainer with ``beta=1.0`` sums over the vocabulary what is sampled here."""
    theirs = pytest.importorskip("trl.trainer.distillation_trainer")
    draw = torch.Generator().manual_seed(2)
    hidden = torch.randn(1, 4, 8, generator=draw, requires_grad=True)
    taught = torch.randn(1, 4, 6, generator=draw)
    heads = torch.randn(11, 8, generator=draw), torch.randn(11, 6, generator=draw)
    mask = torch.tensor([[1, 1, 0, 1]])
    loss, *_ = theirs._chunked_divergence_loss(
        hidden, taught, *heads, mask, beta=1.0, temperature=temperature
    )
    (expected,) = torch.autograd.grad(loss, hidden)
    own = (hidden[mask == 1] @ heads[0].T / temperature).log_softmax(dim=-1)
    teacher = (taught[mask == 1] @ heads[1].T / temperature).log_softmax(dim=-1)
    advantages, found = distillation_advantages(own.detach(), teacher, weight=1.0)
    sampled = own.detach().exp()
    ours = (sampled * -advantages * own).sum() / mask.sum()
    (gradient,) = torch.autograd.grad(ours, hidden)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)
    assert float((sampled * -advantages).sum() / mask.sum()) == pytest.approx(
        float(loss.detach()), rel=1e-5
    )
    assert found.tokens == 33
