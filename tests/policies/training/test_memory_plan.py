"""The planned memory compared with that of a nano model, to the byte where it can be counted."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from codedance.envs.types import Message
from codedance.policies.inference.engine import Prompt, Slots
from codedance.policies.interface import Sampling
from codedance.policies.models.model_folder import ModelFolderError
from codedance.policies.models.model_shape import PUBLISHED, read_shape
from codedance.policies.models.nano import NanoConfig, build_nano
from codedance.policies.models.token_model import PicturedIds
from codedance.policies.training.memory_plan import (
    GPUS,
    Holding,
    Workload,
    activation_bytes,
    attention_flops,
    cache_bytes,
    forward_flops,
    kept_bytes,
    plan_memory,
    plan_seconds,
    trained_parameters,
)
from codedance.policies.training.optimiser import Optimiser, Schedule
from codedance.policies.training.trained_model import TrainedModel
from codedance.policies.training.training_setup import TrainingSetup
from torch.utils.flop_counter import FlopCounterMode

from ..tiny import noise

TOLERANCE = 0.15
"""Relative tolerance of planned activations."""


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_nano(tmp_path_factory.mktemp("nano"), ["how many?"] * 3, NanoConfig())


def sequence(trained: TrainedModel) -> tuple[PicturedIds, Workload]:
    """A long episode with three images, an eighth of its tokens the policy's own."""
    pictures = [noise(seed, 112, 112) for seed in range(3)]
    message = Message("user", (*pictures, "how many? " * 120))
    ids = trained.model.chat.open_prompt([message])
    count = ids.count(trained.model.chat.image_id)
    own = len(ids) // 8
    return PicturedIds(ids, pictures), Workload(1, len(ids), own, count, slots=3)


@contextmanager
def measured_bytes(network: torch.nn.Module) -> Iterator[list[int]]:
    """Count the bytes that autograd keeps, without weights; one entry, set at the end."""
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, torch.Tensor] = {}
    total: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield total
    total.append(sum(tensor.untyped_storage().nbytes() for tensor in kept.values()))


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_planned_activations_match_the_measured_ones(nano, bf16, checkpointing):
    setup = TrainingSetup(bf16=bf16, gradient_checkpointing=checkpointing)
    trained = TrainedModel(nano, setup, seed=0)
    trained.begin_step(0)
    source, work = sequence(trained)
    batch = trained.model.pad([source])
    chosen = torch.zeros_like(batch.ids, dtype=torch.bool)
    chosen[0, -work.own_tokens :] = True
    with measured_bytes(trained.model.model) as total:
        loss = trained.model.log_probabilities(batch, chosen).sum()
    loss.backward()
    shape = read_shape(str(nano))
    holding = Holding(bf16=bf16, gradient_checkpointing=checkpointing)
    planned = kept_bytes(shape, work, holding)
    assert total[0] == pytest.approx(planned, rel=TOLERANCE)
    assert planned < activation_bytes(shape, work, holding) < 3 * planned


@pytest.mark.slow
@pytest.mark.parametrize(("bf16", "lora_r"), [(False, 0), (True, 0), (False, 4), (True, 4)])
def test_planned_weights_gradients_and_optimizer_match_the_actual_ones(nano, bf16, lora_r):
    trained = TrainedModel(nano, TrainingSetup(bf16=bf16, lora_r=lora_r), seed=0)
    trained.begin_step(0)
    network = trained.model.model
    optimiser = Optimiser(
        network, Schedule(1e-3, 1, kind="constant"), weight_decay=0.0, max_grad_norm=1.0
    )
    source, work = sequence(trained)
    batch = trained.model.pad([source])
    trained.model.log_probabilities(batch, torch.ones_like(batch.ids).bool()).sum().backward()
    shape = read_shape(str(nano))
    holding = Holding(bf16=bf16, lora_r=lora_r)
    planned = plan_memory(shape, work, holding, "sft")
    assert trained_parameters(shape, holding) == sum(
        p.numel() for p in network.parameters() if p.requires_grad
    )
    held = sum(p.numel() * p.element_size() for p in network.parameters())
    assert held == planned.weights
    sums = [p.grad for group in optimiser._adam.param_groups for p in group["params"]]
    assert sum(g.numel() * 4 for g in sums if g is not None) == planned.gradients
    optimiser.step(0)
    moments = sum(
        state[name].numel() * 4
        for state in optimiser._adam.state.values()
        for name in ("exp_avg", "exp_avg_sq")
    )
    copies = sum(copy.numel() * 4 for _, copy in optimiser._copies)
    assert moments + copies == planned.optimiser
    gc.collect()


def test_planned_cache_matches_that_of_a_row(nano):
    trained = TrainedModel(nano, TrainingSetup(), seed=0)
    source, work = sequence(trained)
    trained.model.model.eval()
    slots = Slots(trained.model, Sampling(), count=1)
    slots.join([Prompt(tuple(source.ids), source.images, seed=0, turn=0, limit=1)])
    states = slots._cache.states(0)
    held = sum(layer.numel() * layer.element_size() for layer in states.layers)
    shape = read_shape(str(nano))
    assert held == work.tokens * cache_bytes(shape, Holding(bf16=False))


def test_planned_operations_match_the_counted_ones(nano):
    trained = TrainedModel(nano, TrainingSetup(), seed=0)
    source, work = sequence(trained)
    batch = trained.model.pad([source])
    chosen = torch.zeros_like(batch.ids, dtype=torch.bool)
    chosen[0, -work.own_tokens :] = True
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        trained.model.log_probabilities(batch, chosen)
    shape = read_shape(str(nano))
    planned = forward_flops(shape, work) - attention_flops(shape, work)  # not counted on a CPU
    assert counter.get_total_flops() == pytest.approx(planned, rel=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (PUBLISHED[0], 3_754_622_976),
        (PUBLISHED[1], 8_292_166_656),
        (PUBLISHED[2], 33_452_718_336),
        (PUBLISHED[3], 73_410_777_344),
    ],
)
def test_published_models_have_their_published_sizes(name, parameters):
    assert read_shape(name).parameters == parameters


def test_seven_billion_on_one_gpu_needs_adapters_and_on_eight_does_not():
    shape, work = read_shape(PUBLISHED[1]), Workload()
    room = GPUS["h100"].memory
    assert plan_memory(shape, work, Holding(), "grpo").peak > room
    assert plan_memory(shape, work, Holding(lora_r=16), "grpo").peak < room
    assert plan_memory(shape, work, Holding(gpus=8), "grpo").peak < room


def test_more_gpus_need_less_memory_and_time_each():
    shape, work = read_shape(PUBLISHED[1]), Workload()
    peaks = [plan_memory(shape, work, Holding(gpus=n), "grpo").peak for n in (1, 8, 16)]
    assert peaks == sorted(peaks, reverse=True)
    times = [plan_seconds(shape, work, Holding(gpus=n), "grpo", GPUS["h100"]) for n in (1, 8, 16)]
    assert [t.update for t in times] == sorted([t.update for t in times], reverse=True)
    assert times[0].update / times[1].update == pytest.approx(8.0)


def test_a_reference_doubles_the_weights_of_grpo_only():
    shape, work = read_shape(PUBLISHED[1]), Workload()
    plain, doubled = Holding(), Holding(keeps_reference=True)
    weights = [plan_memory(shape, work, one, "grpo").weights for one in (plain, doubled)]
    assert weights[1] == 2 * weights[0]
    assert plan_memory(shape, work, doubled, "sft").weights == weights[0]


def test_adapters_need_no_second_model_for_the_reference():
    shape, work = read_shape(PUBLISHED[1]), Workload()
    held = [
        plan_memory(shape, work, Holding(lora_r=16, keeps_reference=one), "grpo").weights
        for one in (False, True)
    ]
    assert held[0] == held[1]


def test_sharded_weights_act_whole_unless_servers_generate_the_replies():
    shape, work = read_shape(PUBLISHED[1]), Workload()
    alone = plan_memory(shape, work, Holding(), "grpo")
    each = plan_memory(shape, work, Holding(gpus=8, keeps_reference=True), "grpo")
    assert (alone.acting, each.acting) == (0.0, 2.0 * shape.parameters)
    assert each.weights == 2 * 2.0 * shape.parameters / 8
    served = plan_memory(shape, work, Holding(gpus=8, is_served=True), "grpo")
    assert (served.acting, served.cache) == (0.0, 0.0)
    assert plan_seconds(shape, work, Holding(is_served=True), "grpo", GPUS["h100"]).generation == 0
    assert plan_memory(shape, work, Holding(gpus=8), "sft").acting == 0.0


def test_a_folder_without_a_model_is_reported(tmp_path):
    with pytest.raises(ModelFolderError, match=r"Qwen2\.5-VL-7B"):
        read_shape("Qwen/Qwen9-VL")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelFolderError, match="vision"):
        read_shape(str(tmp_path))
