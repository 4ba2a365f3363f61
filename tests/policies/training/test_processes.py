"""Several processes train like one; a run resumes with another number of processes."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from codedance.envs.types import Task
from codedance.policies.models.token_model import TokenModel
from codedance.policies.training.batches import micro_shares
from codedance.policies.training.distributed.processes import (
    World,
    balance,
    join_world,
    leave_world,
)
from codedance.policies.training.grpo.task_order.length_estimator import LengthEstimator
from safetensors.torch import load_file

from ..inference.vllm.fake_vllm import FakeVllm
from ..players import task
from ..tiny import build_tiny

HERE = Path(__file__).parent
LOSSES = 1e-5
WEIGHTS = 1e-5
"""Tolerances of two processes compared with one, whose sums are rounded in another order."""


def test_shares_are_nearly_equal():
    lengths = [9, 1, 1, 1, 5, 4, 3, 8]
    shares = balance(lengths, parts=3)
    assert sorted(index for share in shares for index in share) == list(range(8))
    sums = [sum(lengths[index] for index in share) for share in shares]
    assert max(sums) - min(sums) <= 1


def test_with_more_processes_than_items_some_get_none():
    assert balance([3.0], parts=3) == [[0], [], []]


def test_every_item_is_in_one_share_and_equal_shares_repeat_items_with_weight_zero():
    lengths = [100, 10, 10, 10, 10, 10]
    found = [
        micro_shares(lengths, max_tokens=20, world=World(rank, 2), is_even=True)
        for rank in range(2)
    ]
    assert len(found[0]) == len(found[1])
    real = [index for share in found for micro, counts in share if counts for index in micro]
    assert sorted(real) == list(range(6))
    assert [counts for _, counts in found[0]] == [1.0, 0.0, 0.0]


def test_a_single_process_joins_no_group(monkeypatch: pytest.MonkeyPatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    world = join_world()
    assert (world.rank, world.size, world.is_first) == (0, 1, True)
    assert world.gather(lambda: 7) == [7]
    weight = torch.nn.Parameter(torch.ones(2))
    world.add_gradients([weight])
    assert weight.grad is None


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel reports threads on Linux only")
def test_a_process_leaves_only_when_its_communication_threads_are_idle(
    monkeypatch: pytest.MonkeyPatch,
):
    events: list[str] = []
    carries, rests = threading.Event(), threading.Event()

    def carry() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("pt_gloo_runloop")
        carries.set()
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            sum(range(1000))
        events.append("carried")
        rests.wait()

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: events.append("parted"))
    carrier = threading.Thread(target=carry)
    carrier.start()
    try:
        carries.wait()
        leave_world()
    finally:
        rests.set()
        carrier.join()
    assert events == ["carried", "parted"]


def test_tasks_are_distributed_by_the_expected_length_of_their_kind():
    def kind(index: int, family: str) -> Task:
        one = task(index)
        return Task(f"{family}/{index}", "toy", family, "train", "?", one.images, "5")

    estimator = LengthEstimator()
    assert estimator.shares([kind(0, "a"), kind(1, "b")], parts=2) == [[0], [1]]
    estimator.restore({"toy/long": 100.0, "toy/short": 10.0})
    tasks = [kind(0, "short"), kind(1, "long"), kind(2, "short"), kind(3, "short")]
    assert estimator.shares(tasks, parts=2) == [[1], [0, 2, 3]]
    twice = [kind(0, "short"), kind(1, "short"), kind(0, "short")]
    assert estimator.shares(twice, parts=2) == [[0, 2], [1]]
    assert estimator.state() == {"toy/long": 100.0, "toy/short": 10.0}


def run(
    model: Path, folder: Path, *urls: str, count: int, stop: int = 99, **settings: object
) -> Path:
    """Start ``count`` processes together and wait for them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, str(HERE / "spread_run.py"), str(model), str(folder)]
    started = [
        subprocess.Popen(
            [*command, str(stop), json.dumps(settings), *urls],
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "OMP_NUM_THREADS": "1",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
            stderr=subprocess.PIPE,
        )
        for rank in range(count)
    ]
    for process in started:
        _, error = process.communicate(timeout=280)
        assert process.returncode == 0, error.decode()[-3000:]
    return folder


def steps(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{kind}.jsonl").read_text().splitlines()]


def assert_same(one: Path, other: Path, *kinds: str, weights_within: float = WEIGHTS) -> None:
    for kind in kinds or ("sft", "grpo"):
        first, second = steps(one, kind), steps(other, kind)
        assert [each["step"] for each in first] == [each["step"] for each in second] == [1, 2, 3, 4]
        for mine, theirs in zip(first, second, strict=True):
            theirs = {name: one for name, one in theirs.items() if "engine/" not in name}
            assert mine == pytest.approx(theirs, abs=LOSSES, rel=1e-4)
        weights, others = (
            load_file(root / kind / "final" / "model.safetensors") for root in (one, other)
        )
        assert max(float((weights[n] - others[n]).abs().max()) for n in weights) < weights_within


@pytest.fixture(scope="module")
def alone(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tiny_folder, tmp_path_factory.mktemp("alone"), count=1)


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [False, True])
def test_two_processes_train_like_one(fsdp: bool, alone: Path, tiny_folder: Path, tmp_path: Path):
    both = run(tiny_folder, tmp_path, count=2, fsdp=fsdp)
    assert_same(alone, both)
    sandboxes = sorted(path.name.split("-")[1] for path in both.glob("sandbox-*"))
    assert sandboxes == ["0", "1"]


@pytest.mark.slow
def test_two_processes_train_adapters_of_sharded_weights_like_one(
    tiny_folder: Path, tmp_path: Path
):
    """The reference of GRPO is the sharded model without its adapters."""
    one = run(tiny_folder, tmp_path / "one", count=1, lora_r=4)
    both = run(tiny_folder, tmp_path / "both", count=2, lora_r=4, fsdp=True)
    assert_same(one, both)
    assert steps(both, "grpo")[-1]["kl"] > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [False, True])
def test_two_processes_divide_what_a_teacher_scores(fsdp: bool, tiny_folder: Path, tmp_path: Path):
    teacher = str(build_tiny(tmp_path / "teacher", seed=5))
    distilled = {"teacher": teacher, "distillation_weight": 1.0, "reward_weight": 0.5}
    one = run(tiny_folder, tmp_path / "one", count=1, **distilled)
    both = run(tiny_folder, tmp_path / "both", count=2, fsdp=fsdp, **distilled)
    assert_same(one, both, "grpo")
    assert steps(both, "grpo")[-1]["distillation/kl"] > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("lora_r", [0, 4])
def test_two_processes_hand_sharded_weights_over_like_one(
    lora_r: int, tiny_folder: Path, tiny_model: TokenModel, tmp_path: Path
):
    own = run(tiny_folder, tmp_path / "own", count=1, lora_r=lora_r)
    with FakeVllm(tiny_model) as fake:
        served = run(tiny_folder, tmp_path / "served", fake.url, count=2, lora_r=lora_r, fsdp=True)
    # The servers' log-probabilities, which enter the loss, are rounded in another order, too.
    assert_same(own, served, "grpo", weights_within=10 * WEIGHTS)
    # The first process alone has a whole copy; adapters need no second model for the reference.
    counts = [int((served / f"grpo-models-{rank}").read_text()) for rank in range(2)]
    assert counts == ([2, 1] if lora_r else [3, 2])
    # It alone hands over, once each step.
    assert fake.calls.count("/collective_rpc") == (0 if lora_r else 4)
    assert len({one.get("model") for one in fake.bodies}) == (4 if lora_r else 1)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after", "fsdp"), [(2, 1, True), (1, 2, False)])
def test_a_run_resumes_with_another_number_of_processes(
    before: int, after: int, fsdp: bool, alone: Path, tiny_folder: Path, tmp_path: Path
):
    run(tiny_folder, tmp_path, count=before, stop=2, fsdp=fsdp)
    assert len(steps(tmp_path, "grpo")) == 2
    run(tiny_folder, tmp_path, count=after, fsdp=fsdp)
    assert_same(alone, tmp_path)


@pytest.mark.slow
def test_two_processes_train_while_servers_reply(
    tiny_folder: Path, tiny_model: TokenModel, tmp_path: Path
):
    """Each plays its share of the steps that are under way; all learn from all groups."""
    with FakeVllm(tiny_model) as fake:
        options = {"fsdp": True, "max_staleness": 1, "max_redraws": 0}
        served = run(tiny_folder, tmp_path, fake.url, count=2, **options)
    found = steps(served, "grpo")
    assert [one["step"] for one in found] == [1, 2, 3, 4]
    for one in found:
        assert (one["groups"], one["groups_dropped"], one["infrastructure_share"]) == (
            3.0,
            0.0,
            0.0,
        )
        assert one["engine/handshake_max"] < 1e-4
        assert one.get("sampling_logp_difference/behind_0/max", 0.0) < 1e-4
    assert fake.calls.count("/pause?mode=keep") == fake.calls.count("/collective_rpc") == 4
