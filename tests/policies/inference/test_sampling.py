import pytest
import torch
from codedance.policies.inference.sampling import choose, draw_uniform, sampled_scores
from codedance.policies.interface import Sampling
from codedance.policies.seeds import derive_seed

ALL = torch.ones(4, dtype=torch.bool)
LOGITS = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()[None]


def draw(uniform: float, sampling: Sampling, allowed: torch.Tensor = ALL) -> int:
    return int(choose(LOGITS, torch.tensor([uniform], dtype=torch.float64), sampling, allowed))


@pytest.mark.parametrize(
    ("uniform", "token"),
    [(0.0, 0), (0.09, 0), (0.11, 1), (0.29, 1), (0.31, 2), (0.61, 3), (1 - 2**-53, 3)],
)
def test_token_is_where_the_distribution_function_exceeds_the_number(uniform: float, token: int):
    assert draw(uniform, Sampling()) == token


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_forbidden_token_is_never_drawn(uniform: float):
    allowed = torch.tensor([False, True, True, False])
    assert draw(uniform, Sampling(), allowed) in {1, 2}
    assert draw(uniform, Sampling(temperature=0.0), allowed) == 2


def test_low_temperature_sharpens():
    # At temperature ½ the weights are squares: 1, 4, 9, 16 of 30.
    assert draw(0.46, Sampling(temperature=0.5)) == 2
    assert draw(0.47, Sampling(temperature=0.5)) == 3


def test_top_k_keeps_the_likeliest():
    assert {draw(u / 100, Sampling(top_k=2)) for u in range(100)} == {2, 3}


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    assert {draw(u / 100, Sampling(top_p=0.65)) for u in range(100)} == {2, 3}
    assert {draw(u / 100, Sampling(top_p=0.3)) for u in range(100)} == {3}


@pytest.mark.parametrize(
    ("sampling", "probabilities"),
    [
        (Sampling(), [0.0, 2 / 9, 3 / 9, 4 / 9]),
        (Sampling(temperature=0.5), [0.0, 4 / 29, 9 / 29, 16 / 29]),
        (Sampling(temperature=0.0), [0.0, 2 / 9, 3 / 9, 4 / 9]),
        (Sampling(top_k=2), [0.0, 0.0, 3 / 7, 4 / 7]),
        (Sampling(temperature=0.5, top_p=0.6), [0.0, 0.0, 9 / 25, 16 / 25]),
    ],
)
def test_scores_are_those_of_the_distribution_that_tokens_are_drawn_from(sampling, probabilities):
    allowed = torch.tensor([False, True, True, True])
    before = LOGITS.clone()
    drawable = [token for token, share in enumerate(probabilities) if share]
    scores = sampled_scores(
        LOGITS.expand(len(drawable), -1), torch.tensor(drawable), sampling, allowed
    )
    assert scores.exp().tolist() == pytest.approx([probabilities[one] for one in drawable])
    assert torch.equal(LOGITS, before)


def test_drawing_changes_no_logits():
    logits = LOGITS.double()
    before = logits.clone()
    choose(logits, torch.tensor([0.5], dtype=torch.float64), Sampling(temperature=2.0), ALL)
    assert torch.equal(logits, before)


def test_numbers_depend_only_on_seed_and_turn():
    first = draw_uniform(7, 0, 16)
    assert torch.equal(first, draw_uniform(7, 0, 16))
    assert torch.equal(first[:8], draw_uniform(7, 0, 8))
    assert not torch.equal(first, draw_uniform(7, 1, 16))
    assert not torch.equal(first, draw_uniform(8, 0, 16))


def test_sampling_does_not_change_the_global_random_state():
    before = torch.get_rng_state()
    draw_uniform(7, 0, 16)
    assert torch.equal(before, torch.get_rng_state())


def test_seed_distinguishes_its_parts():
    assert derive_seed("a", "bc") != derive_seed("ab", "c")
    assert 0 <= derive_seed("a") < 2**63
