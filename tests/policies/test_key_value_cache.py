import pytest
import torch
from codedance.policies.key_value_cache import GrowingCache
from transformers import DynamicCache


def states(seed: int, length: int, rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, rows, 2, length, 4, generator=generator)
    return keys, values


@torch.no_grad()
def test_growing_past_the_buffer_gives_what_concatenation_gives():
    ours, theirs = GrowingCache(), DynamicCache()
    for step, length in enumerate([5, 1, 1, 90, *[1] * 70]):
        for layer in range(2):
            keys, values = states(step * 2 + layer, length)
            mine = ours.update(keys, values, layer)
            expected = theirs.update(keys, values, layer)
            assert torch.equal(mine[0], expected[0])
            assert torch.equal(mine[1], expected[1])
    assert ours.get_seq_length() == theirs.get_seq_length() == 167


@torch.no_grad()
def test_rows_are_chosen_anew_and_grow_on():
    cache = GrowingCache()
    first, later = states(0, 4), states(1, 1, rows=4)
    cache.update(*first, 0)
    rows = torch.tensor([2, 2, 0, 1])
    cache.select(rows)
    keys, values = cache.update(*later, 0)
    assert torch.equal(keys, torch.cat([first[0][rows], later[0]], dim=2))
    assert torch.equal(values, torch.cat([first[1][rows], later[1]], dim=2))


def test_cache_that_would_break_gradients_is_refused():
    with pytest.raises(RuntimeError, match="no_grad"):
        GrowingCache()
