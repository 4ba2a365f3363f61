"""Training over servers is the training of our own engine, and their weights follow."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from codedance.envs.types import Ending
from codedance.policies.inference.vllm.control import ControlError
from codedance.policies.inference.vllm.handshake import HandshakeError
from codedance.policies.inference.vllm.settings import VllmSettings
from codedance.policies.training.grpo.asynchronous.weight_age import steps_behind
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.training_state import TrainingInterrupted
from codedance.sandbox.types import Sandbox
from transformers import AutoModelForImageTextToText

from ..inference.vllm.fake_vllm import FakeVllm
from ..players import task
from .runs import Run

pytestmark = pytest.mark.usefixtures("letters")
TASKS = [task(index) for index in range(7)]
CONFIG = GRPOConfig(
    steps=3,
    tasks_per_step=2,
    num_generations=3,
    learning_rate=1e-3,
    max_new_tokens=8,
    max_redraws=0,
    save_every=1,
    reward="outcome",
)
QUICK = VllmSettings(patience_seconds=0.5, max_retries=1)


def run_of(start: Path, folder: Path, sandbox: Sandbox, *fakes: FakeVllm) -> Run:
    return Run(start, folder, sandbox, TASKS, CONFIG).over(QUICK, *fakes)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForImageTextToText.from_pretrained(folder).state_dict()


@pytest.mark.parametrize("adapters", [0, pytest.param(4, marks=pytest.mark.slow)])
def test_training_is_that_of_our_own_engine(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox, adapters: int
) -> None:
    config = replace(CONFIG, lora_r=adapters)
    own = run_of(tiny_folder, tmp_path / "own", sandbox)
    served = run_of(tiny_folder, tmp_path / "served", sandbox, fake)
    first, second = weights_of(own.go(config)), weights_of(served.go(config))
    assert served.ids() == own.ids()
    assert len(set(served.ids())) > 6
    assert [one["reward"] for one in served.metrics] == [one["reward"] for one in own.metrics]
    before = weights_of(tiny_folder)
    for name, values in first.items():
        torch.testing.assert_close(second[name], values, atol=1e-4, rtol=1e-3)
    assert any(not torch.equal(first[name], before[name]) for name in first)
    for one in served.metrics:
        assert one["sampling_logp_difference/max"] < 1e-4
        assert one["engine/handshake_max"] < 1e-4
        assert one["engine/requests"] >= 6.0
        assert one["importance_sampling_ratio/effective_share"] > 0.999
    assert [steps_behind(2, one) for one in sorted(served.versions())] == [2, 1, 0]


@pytest.mark.slow
def test_only_the_newest_weights_are_kept_and_none_at_the_end(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    run = run_of(tiny_folder, tmp_path / "run", sandbox, fake)
    kept: list[list[str]] = []
    run.go(should_stop=lambda: bool(kept.append([one.name for one in run.handed.iterdir()])))
    assert kept == [["step-0"], ["step-1"], ["step-2"]]
    assert list(run.handed.iterdir()) == []


@pytest.mark.slow
def test_stopped_training_goes_on_as_if_it_had_not_been(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    straight = run_of(tiny_folder, tmp_path / "straight", sandbox, fake)
    straight.go()
    cut = run_of(tiny_folder, tmp_path / "cut", sandbox, fake)
    with pytest.raises(TrainingInterrupted):
        cut.go(should_stop=lambda: True)
    cut.go()
    assert cut.ids() == straight.ids()


@pytest.mark.slow
def test_adapters_of_an_earlier_training_are_not_taken_for_ours(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    config = replace(CONFIG, lora_r=4, steps=2)
    for seed in (0, 1):
        run = run_of(tiny_folder, tmp_path / f"run-{seed}", sandbox, fake)
        run.go(replace(config, seed=seed))
        assert max(one["sampling_logp_difference/max"] for one in run.metrics) < 1e-4
    names = [body["model"] for body in fake.bodies]
    assert len(set(names)) == 4
    assert fake.calls.count("/v1/unload_lora_adapter") == 4


def test_server_that_does_not_load_ends_the_training(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox, monkeypatch: Any
) -> None:
    """Stale weights are never trained on, whatever version the server names."""
    monkeypatch.setattr(fake.engine, "load", lambda _: None)
    run = run_of(tiny_folder, tmp_path / "run", sandbox, fake)
    with pytest.raises(HandshakeError, match="differ by"):
        run.go()
    assert len(run.metrics) == 1  # the first step's weights are those that it began with


def test_server_without_control_routes_ends_the_training_at_once(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    fake.has_control = False
    with pytest.raises(ControlError, match="serve engine"):
        run_of(tiny_folder, tmp_path / "run", sandbox, fake).go()


@pytest.mark.slow
def test_training_waits_for_a_server_and_fails_if_it_stays_away(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    run = run_of(tiny_folder, tmp_path / "run", sandbox, fake)
    fake.kill()
    with pytest.raises(ControlError, match="gave no answer"):
        run.go()
    assert not run.metrics
    patient = replace(run.served, settings=replace(QUICK, patience_seconds=60.0))  # type: ignore[type-var]
    run.served = patient
    threading.Timer(0.3, fake.restart).start()
    run.go()
    assert len(run.metrics) == 3


@pytest.mark.slow
@pytest.mark.parametrize("adapters", [0, 4])
def test_server_that_is_reborn_within_a_step_is_given_the_weights_again(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox, adapters: int
) -> None:
    run = run_of(tiny_folder, tmp_path / "run", sandbox, fake)
    run.served = replace(run.served, settings=VllmSettings(patience_seconds=60.0))  # type: ignore[type-var]
    died: list[int] = []

    def die(number: int, body: dict[str, Any]) -> None:
        is_rollout = body["sampling_params"]["max_tokens"] > 1
        if is_rollout and len(run.metrics) == 1 and not died:
            died.append(number)
            fake.kill()
            fake.reborn()

    fake.faults.before = die
    run.go(replace(CONFIG, lora_r=adapters))
    assert died
    assert all(one.is_valid for one in run.trajectories)
    if not adapters:
        assert run.versions() == {"step-0", "step-1", "step-2"}
    assert max(one["sampling_logp_difference/max"] for one in run.metrics) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("dies_in", ["rollout", "handshake"])
def test_one_of_two_servers_may_be_away(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox, dies_in: str
) -> None:
    with FakeVllm(fake.model) as other:
        run = run_of(tiny_folder, tmp_path / "run", sandbox, fake, other)
        run.served = replace(run.served, settings=VllmSettings(patience_seconds=60.0))  # type: ignore[type-var]

        def die(number: int, body: dict[str, Any]) -> None:
            is_rollout = body["sampling_params"]["max_tokens"] > 1
            if len(run.metrics) == 1 and is_rollout == (dies_in == "rollout"):
                other.kill()

        other.faults.before = die
        run.go()
        second = 2.0 if dies_in == "rollout" else 1.0
        assert [one["engine/servers"] for one in run.metrics] == [2.0, second, 1.0]
        lost = [one for one in run.trajectories if one.ending is Ending.INFRASTRUCTURE]
        assert not lost
        assert len(run.trajectories) == 18


@pytest.mark.slow
def test_training_over_a_group_is_that_of_our_own_engine(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox, monkeypatch: Any
) -> None:
    """NCCL's place is taken by a queue: the rest of the way is that of GPUs."""

    class Group:
        def __init__(self, size: int, unique_id: bytes) -> None:
            assert (size, unique_id) == (3, b"id")

        def broadcast(self, values: torch.Tensor) -> None:
            fake.engine.inbox.put(values.clone())

    module = "codedance.policies.inference.vllm.nccl_transfer"
    monkeypatch.setattr(f"{module}.NcclGroup", Group)
    monkeypatch.setattr(f"{module}._nccl_id", lambda: b"id")
    own = run_of(tiny_folder, tmp_path / "own", sandbox)
    served = run_of(tiny_folder, tmp_path / "served", sandbox, fake)
    served.served = replace(served.served, transfer="nccl")  # type: ignore[type-var]
    own.go()
    served.go()
    assert served.ids() == own.ids()
    assert served.versions() == {"step-0", "step-1", "step-2"}
    assert not served.handed.exists()
