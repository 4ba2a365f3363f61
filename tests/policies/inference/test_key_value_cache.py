import pytest
import torch
from codedance.policies.inference.key_value_cache import RowStates, SlotCache, past_cache
from transformers import DynamicCache

HEADS, WIDTH, LAYERS = 2, 4, 2


def prefill(seed: int, rows: int, length: int) -> DynamicCache:
    cache = DynamicCache()
    generator = torch.Generator().manual_seed(seed)
    for layer in range(LAYERS):
        keys, values = torch.randn(2, rows, HEADS, length, WIDTH, generator=generator)
        cache.update(keys, values, layer)
    return cache


def join(cache: SlotCache, source: DynamicCache, rows: list[int], lengths: list[int]) -> None:
    longest = source.layers[0].keys.shape[2]
    columns = torch.arange(longest).expand(len(rows), -1)
    cache.join(source, torch.tensor(rows), columns, lengths)


def held(cache: SlotCache, row: int) -> torch.Tensor:
    return torch.stack(cache.states(row).layers)


def of(source: DynamicCache, row: int, length: int) -> torch.Tensor:
    return torch.stack(
        [torch.stack([one.keys[row], one.values[row]])[:, :, :length] for one in source.layers]
    )


def step(cache: SlotCache, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Feed one random token per row through transformers' own interface; return keys and values."""
    rows = len(cache.lengths)
    seen = cache.open_step()
    generator = torch.Generator().manual_seed(seed)
    fed = torch.randn(LAYERS, 2, rows, HEADS, 1, WIDTH, generator=generator)
    for layer in range(LAYERS):
        cache.update(fed[layer, 0], fed[layer, 1], layer)
    return seen, fed


@torch.no_grad()
def test_rows_join_without_holes_and_grow_on_their_own():
    cache, source = SlotCache(4), prefill(0, rows=2, length=5)
    join(cache, source, [0, 1, 1], [5, 3, 3])
    seen, fed = step(cache, 1)
    assert seen.tolist() == [[True] * 6, [True] * 4 + [False] * 2, [True] * 4 + [False] * 2]
    for row, (of_row, length) in enumerate([(0, 5), (1, 3), (1, 3)]):
        expected = torch.cat([of(source, of_row, length), fed[:, :, row]], dim=3)
        assert torch.equal(held(cache, row), expected)


@torch.no_grad()
def test_growing_past_the_buffers_loses_nothing():
    cache, source = SlotCache(1), prefill(0, rows=1, length=60)
    join(cache, source, [0], [60])
    fed = [step(cache, seed)[1][:, :, 0] for seed in range(200)]
    assert torch.equal(held(cache, 0), torch.cat([of(source, 0, 60), *fed], dim=3))


@torch.no_grad()
def test_removed_rows_are_replaced_by_the_last_ones():
    cache, source = SlotCache(4), prefill(0, rows=4, length=4)
    join(cache, source, [0, 1, 2, 3], [4, 1, 2, 3])
    cache.keep([3, 1])
    assert cache.lengths == [3, 1]
    assert torch.equal(held(cache, 0), of(source, 3, 3))
    assert torch.equal(held(cache, 1), of(source, 1, 1))
    join(cache, prefill(1, rows=1, length=2), [0], [2])
    assert torch.equal(held(cache, 2), of(prefill(1, rows=1, length=2), 0, 2))


@torch.no_grad()
def test_a_rejoining_row_has_its_earlier_keys_and_values():
    cache, source = SlotCache(2), prefill(0, rows=2, length=4)
    join(cache, source, [0, 1], [4, 2])
    left = [cache.states(row) for row in range(2)]
    again = past_cache(left)
    assert torch.equal(of(again, 0, 4), of(source, 0, 4))
    assert torch.equal(of(again, 1, 2), of(source, 1, 2))
    assert not again.layers[0].keys[1, :, 2:].any()
    assert [one.length for one in left] == [4, 2]
    assert isinstance(left[0], RowStates)


@torch.no_grad()
def test_more_rows_than_slots_are_rejected():
    cache = SlotCache(1)
    with pytest.raises(ValueError, match="1 slots are free"):
        join(cache, prefill(0, rows=2, length=1), [0, 1], [1, 1])


def test_cache_that_would_break_gradients_is_rejected():
    with pytest.raises(RuntimeError, match="no_grad"):
        SlotCache(1)
