"""The plan of a GPU that training and server share, with numbers worked out by hand."""

from dataclasses import replace

import pytest
from codedance.policies.models.model_shape import PUBLISHED, ModelShape, Tower, read_shape
from codedance.policies.training.colocation_plan import (
    ASLEEP_BYTES,
    CONTEXT_BYTES,
    SPARE_SHARE,
    plan_shared_gpu,
)
from codedance.policies.training.memory_plan import Holding, Workload, activation_bytes

TOWER = Tower(
    width=1000,
    layers=10,
    heads=10,
    kv_heads=2,
    head_width=100,
    inner=3000,
    parameters=800_000_000,
    largest_layer=80_000_000,
    adapted=10_000,
)
SHAPE = ModelShape("a billion", TOWER, TOWER, vocabulary=10_000, parameters=1_000_000_000)
WORK = Workload(tokens=8192)


def test_the_server_gets_what_the_training_leaves():
    found = plan_shared_gpu(SHAPE, WORK, Holding(), total=24e9)
    assert (found.model, found.optimiser, found.gradients) == (2e9, 12e9, 4e9)
    assert found.kept == pytest.approx(14.6e9)  # with 0.6 GB of libraries
    # 95 % of 24 GB, less what is kept and the server's own libraries: 7.6 GB, 31 hundredths.
    assert found.share == 0.31
    assert found.engine == 4e9  # its weights, and 2 GB to compute with
    assert found.cache == pytest.approx(0.31 * 24e9 - 4e9)
    assert found.token == 2 * 10 * 2 * 100 * 2  # keys and values, layers, heads, width, bytes
    assert found.generating == pytest.approx(14.6e9 + 0.6e9 + 0.31 * 24e9)
    activations = activation_bytes(SHAPE, WORK, Holding())
    assert found.updating == pytest.approx(14.6e9 + 4e9 + activations + 0.6e9 + 0.9e9)
    assert found.main == 2e9 + 2 * 2e9  # asleep, and two hand-overs


def test_adapters_are_of_two_steps_and_leave_more():
    whole = plan_shared_gpu(SHAPE, WORK, Holding(), total=24e9)
    found = plan_shared_gpu(SHAPE, WORK, Holding(lora_r=16), total=24e9)
    trained = 10 * 10_000 * 16
    assert found.engine == whole.engine + 2 * 2 * trained
    assert found.main == 2e9 + 2 * 2 * trained + 2 * 4 * trained
    assert found.share > whole.share


@pytest.mark.parametrize("holding", [Holding(), Holding(lora_r=16), Holding(keeps_reference=True)])
@pytest.mark.parametrize("size", [24e9, 40e9, 80e9])
def test_what_fits_leaves_the_spare_share_free(holding, size):
    found = plan_shared_gpu(SHAPE, WORK, holding, total=size)
    room = size * (1 - SPARE_SHARE)
    assert found.fits(8192) == (max(found.generating, found.updating) <= room)
    assert 0.0 <= found.share < 1.0
    assert found.generates(10**9) is False


def test_a_phase_that_does_not_fit_is_enough():
    found = plan_shared_gpu(SHAPE, WORK, Holding(), total=24e9)
    assert found.fits(8192)
    needs = found.updating / (1 - SPARE_SHARE)
    assert not replace(found, activations=found.activations + 24e9 - needs + 1e6).fits(8192)
    assert not replace(found, engine=found.engine + found.cache).fits(8192)
    small = plan_shared_gpu(SHAPE, WORK, Holding(), total=8e9)
    assert (small.share, small.cache) == (0.0, 0.0)
    assert not small.generates(1)
    assert small.generating > small.total


def test_three_billion_with_adapters_fit_24_gb_and_whole_ones_do_not_fit_80():
    shape = read_shape(PUBLISHED[0])
    assert plan_shared_gpu(shape, WORK, Holding(lora_r=16), total=24e9).fits(16_384)
    assert not plan_shared_gpu(shape, WORK, Holding(), total=40e9).fits(8192)
    assert plan_shared_gpu(read_shape(PUBLISHED[1]), WORK, Holding(lora_r=16), total=80e9).fits(
        8192
    )


def test_assumptions_are_those_that_the_command_states():
    assert (CONTEXT_BYTES, ASLEEP_BYTES, SPARE_SHARE) == (0.6e9, 0.9e9, 0.05)
