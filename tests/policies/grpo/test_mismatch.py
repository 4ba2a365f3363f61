import math

import pytest
import torch
from codedance.policies.training.grpo.correction import Correction
from codedance.policies.training.grpo.loss import clipped_loss
from codedance.policies.training.grpo.mismatch import (
    MismatchFigures,
    Weights,
    importance_weights,
    mismatch_metrics,
)

LENGTHS = [2, 1]
TWICE_HALF_FOUR = torch.tensor([2.0, 0.5, 4.0]).log()


@pytest.mark.parametrize(
    ("correction", "weights", "limited"),
    [
        (Correction("token_truncate", 3.0), [2.0, 0.5, 3.0], [False, False, True]),
        (Correction("token_truncate", 3.0, 1.0), [2.0, 1.0, 3.0], [False, True, True]),
        (Correction("token_mask", 3.0, 1.0), [2.0, 0.0, 0.0], [False, True, True]),
        (Correction("sequence_truncate", 3.0), [1.0, 1.0, 3.0], [False, False, True]),
        (Correction("sequence_mask", 3.0), [1.0, 1.0, 0.0], [False, False, True]),
        (Correction("sequence_mask", None, 2.0), [0.0, 0.0, 4.0], [True, True, False]),
    ],
)
def test_weights_by_hand(correction, weights, limited):
    found = importance_weights(TWICE_HALF_FOUR, LENGTHS, correction)
    assert found.values.tolist() == pytest.approx(weights)
    assert found.is_limited.tolist() == limited


@pytest.mark.parametrize("mode", ["token_mask", "sequence_mask"])
def test_a_ratio_beyond_every_number_stays_finite(mode):
    correction = Correction(mode, None, 0.5)
    found = importance_weights(torch.tensor([300.0, -300.0]), [1, 1], correction)
    assert found.values.isfinite().all()
    assert found.values[1] == 0.0


def test_weighted_gradients_are_those_of_the_trainers_own_distribution():
    # By enumeration of all tokens: an engine that is twice as likely to draw one of three.
    logits = torch.tensor([0.3, -0.2, 0.5], requires_grad=True)
    engine = torch.softmax(logits.detach() + torch.tensor([math.log(2.0), 0.0, 0.0]), dim=0)
    rewards = torch.tensor([1.0, -0.5, 0.2])

    def gradient(drawn: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        new = torch.log_softmax(logits, dim=0)
        losses = clipped_loss(new, new.detach(), rewards, epsilon=0.2, epsilon_high=0.2)
        (found,) = torch.autograd.grad((drawn * weights * losses).sum(), logits)
        return found

    trainer = torch.softmax(logits.detach(), dim=0)
    ones = torch.ones(3)
    found = importance_weights((trainer / engine).log(), [1, 1, 1], Correction())
    assert not found.is_limited.any()
    torch.testing.assert_close(gradient(engine, found.values), gradient(trainer, ones))
    assert (gradient(engine, ones) - gradient(trainer, ones)).abs().max() > 0.05


def test_figures_by_hand():
    differences = TWICE_HALF_FOUR
    weights = importance_weights(differences, LENGTHS, Correction())
    figures = MismatchFigures.of(differences, weights)
    metrics = figures.metrics()
    assert metrics["sampling_logp_difference/mean"] == pytest.approx(4 / 3 * math.log(2.0))
    assert metrics["sampling_logp_difference/max"] == pytest.approx(2 * math.log(2.0))
    assert metrics["importance_sampling_ratio/limited_share"] == pytest.approx(1 / 3)
    assert metrics["importance_sampling_ratio/mean"] == pytest.approx(5.5 / 3)
    assert metrics["importance_sampling_ratio/effective_share"] == pytest.approx(
        5.5**2 / (3 * (4.0 + 0.25 + 9.0))
    )


def test_figures_of_parts_are_those_of_the_whole():
    weights = importance_weights(TWICE_HALF_FOUR, LENGTHS, Correction())
    parts = [
        MismatchFigures.of(TWICE_HALF_FOUR[at], Weights(weights.values[at], weights.is_limited[at]))
        for at in (slice(0, 1), slice(1, 1), slice(1, 3))
    ]
    joined = parts[0].joined(parts[1]).joined(parts[2])
    whole = MismatchFigures.of(TWICE_HALF_FOUR, weights).metrics()
    assert joined.metrics() == pytest.approx(whole)


def test_a_batch_that_is_wholly_masked_has_no_effective_sample():
    masked = importance_weights(TWICE_HALF_FOUR, LENGTHS, Correction("token_mask", 0.1))
    metrics = MismatchFigures.of(TWICE_HALF_FOUR, masked).metrics()
    assert metrics["importance_sampling_ratio/effective_share"] == 0.0
    assert mismatch_metrics({}) == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "token"}, "mode is one of token_truncate"),
        ({"clip_max": -1.0}, "clip_max must be at least 0, got -1.0"),
        ({"clip_min": 3.0}, "clip_min must be below"),
        ({"clip_max": None}, "needs a"),
        ({"off_policy_mask_threshold": 0.0}, "threshold must be above 0"),
    ],
)
def test_bounds_that_bound_nothing_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Correction(**settings)
