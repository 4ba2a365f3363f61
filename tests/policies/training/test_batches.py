import torch
from codedance.policies.training.batches import (
    batch_at,
    bucket_batches,
    epoch_batches,
    micro_batches,
    packs,
    pad_flags,
)


def test_every_item_is_used_once_per_epoch():
    batches = epoch_batches(40, batch_size=8, seed=0, epoch=0)
    assert [len(batch) for batch in batches] == [8] * 5
    assert sorted(i for batch in batches for i in batch) == list(range(40))


def test_a_batch_is_a_uniform_sample_of_all_items():
    """With items sorted by kind, 0 to 31 and 32 to 63, a batch of 32 contains both kinds."""
    for batch in epoch_batches(64, batch_size=32, seed=1, epoch=0):
        assert 6 <= sum(index < 32 for index in batch) <= 26


def test_items_of_a_micro_batch_have_similar_lengths():
    assert micro_batches([10, 90, 10, 90], max_tokens=180) == [[1, 3], [0, 2]]


def test_left_over_items_rotate_between_epochs():
    used = [
        {i for batch in epoch_batches(10, batch_size=8, seed=0, epoch=epoch) for i in batch}
        for epoch in range(6)
    ]
    assert all(len(one) == 8 for one in used)
    assert set().union(*used) == set(range(10))


def test_batch_of_a_step_needs_no_other_state():
    whole = [batch_at(20, batch_size=8, seed=3, step=step) for step in range(6)]
    assert whole[:2] == epoch_batches(20, batch_size=8, seed=3, epoch=0)
    assert whole[4:] == epoch_batches(20, batch_size=8, seed=3, epoch=2)


def test_fewer_items_than_a_batch_are_one_batch():
    assert sorted(batch_at(3, batch_size=8, seed=0, step=4)) == [0, 1, 2]


def test_micro_batches_stay_within_the_token_budget():
    # 7 + 7 over 2 rows of 7 is 14; 4, 4, 3 over 3 rows of 4 is 12; the 20 is alone.
    assert micro_batches([4, 7, 20, 3, 7, 4], max_tokens=14) == [[2], [1, 4], [0, 5, 3]]


def test_flags_are_padded_with_false():
    expected = torch.tensor([[True, False, False], [False, True, True]])
    assert torch.equal(pad_flags([[True], [False, True, True]], length=3), expected)


def test_buckets_contain_items_of_similar_length_once_per_epoch():
    lengths = [(7 * index) % 101 for index in range(100)]
    batches = bucket_batches(lengths, batch_size=10, seed=0, epoch=0)
    assert sorted(index for batch in batches for index in batch) == list(range(100))
    spread = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in batches]
    assert max(spread) <= 12
    means = [sum(lengths[i] for i in batch) for batch in batches]
    assert means != sorted(means)  # short and long batches are mixed
    assert batches != bucket_batches(lengths, batch_size=10, seed=0, epoch=1)


def test_buckets_depend_only_on_the_step():
    lengths = list(range(40))
    every = bucket_batches(lengths, batch_size=10, seed=3, epoch=1)
    found = [
        batch_at(40, batch_size=10, seed=3, step=step, lengths=lengths) for step in range(4, 8)
    ]
    assert found == every


def test_packs_are_full_rows_of_whole_items():
    lengths = [60, 50, 40, 30, 20, 200]
    rows = packs(lengths, max_tokens=100)
    assert rows == [[5], [0, 2], [1, 3, 4]]  # the long one alone; 100 and 100 tokens
    assert packs([], max_tokens=10) == []
