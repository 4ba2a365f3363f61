"""Trainer and server take turns on one GPU: the training stays what it was, and failures end it.

The fake answers with an error where released memory would be used, as a GPU would.
"""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from codedance.envs.types import Ending
from codedance.policies.inference.vllm import control
from codedance.policies.inference.vllm.control import ControlError
from codedance.policies.inference.vllm.settings import VllmSettings
from codedance.policies.models.model_folder import ModelNotes
from codedance.policies.models.token_model import TokenModel
from codedance.policies.rollouts.losses import EpisodesLostError
from codedance.policies.training.distributed.processes import World
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.served_rollouts import ServedRollouts, WeightFollower
from codedance.policies.training.trained_model import TrainedModel
from codedance.sandbox.types import Sandbox

from ..inference.vllm.fake_vllm import MEMORY, FakeVllm
from .runs import Run
from .test_served_rollouts import CONFIG as LARGE
from .test_served_rollouts import QUICK, TASKS, run_of

pytestmark = pytest.mark.usefixtures("letters")
CONFIG = replace(LARGE, tasks_per_step=1, num_generations=3, max_new_tokens=6)
LORA = replace(CONFIG, lora_r=4, beta=0.05)
PATIENT = replace(QUICK, patience_seconds=60.0)


class Colocated(Run):
    """A training whose server sleeps during updates."""

    def __init__(
        self,
        start: Path,
        folder: Path,
        sandbox: Sandbox,
        fake: FakeVllm,
        settings: VllmSettings = QUICK,
    ) -> None:
        super().__init__(start, folder, sandbox, TASKS, LARGE)
        self.fake = fake
        self.served = ServedRollouts((fake.url,), self.handed, settings, colocated=True)
        self.after: dict[int, Any] = {}

    def go(self, config: GRPOConfig | None = None, **options: Any) -> Path:
        def should_stop() -> bool:
            self.after.pop(len(self.metrics), lambda: None)()
            return False

        return super().go(config or CONFIG, should_stop=should_stop, **options)


@pytest.mark.slow
@pytest.mark.parametrize("config", [CONFIG, LORA])
def test_training_is_that_with_a_server_that_never_sleeps(
    fake: FakeVllm,
    tiny_model: TokenModel,
    tiny_folder: Path,
    tmp_path: Path,
    sandbox: Sandbox,
    config: GRPOConfig,
) -> None:
    with FakeVllm(tiny_model) as other:
        apart = run_of(tiny_folder, tmp_path / "apart", sandbox, other)
        apart.go(config)
    shared = Colocated(tiny_folder, tmp_path / "shared", sandbox, fake)
    shared.go(config)
    assert shared.ids() == apart.ids()
    assert len(set(shared.ids())) > 3
    assert fake.naps == config.steps
    assert other.naps == 0
    for mine, theirs in zip(shared.metrics, apart.metrics, strict=True):
        same = [name for name in theirs if "seconds" not in name and "/cached" not in name]
        assert {name: mine[name] for name in same} == {name: theirs[name] for name in same}
        assert mine["engine/sleep_seconds"] >= 0.0
    assert not fake.asleep  # others may use it from now on


@pytest.mark.slow
@pytest.mark.parametrize("config", [CONFIG, LORA])
def test_server_sleeps_during_the_update_and_wakes_in_two_parts(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox, config: GRPOConfig
) -> None:
    run = Colocated(tiny_folder, tmp_path / "run", sandbox, fake)
    asleep: list[list[str]] = []

    run.at = lambda _: asleep.append([*fake.asleep])
    run.go(config)
    assert asleep == [list(MEMORY)] * 3  # called right before the update
    load = "/v1/load_lora_adapter" if config.lora_r else "/collective_rpc"
    told = [one for one in fake.calls if "wake" in one or "sleep?" in one or one == load]
    wakes = ["/wake_up?tags=weights", load, "/wake_up?tags=kv_cache"]
    again = wakes if config.lora_r else []  # adapters, before the first request of a step
    assert told == [*[*wakes, *again, "/sleep?level=1&mode=abort"] * 3, "/wake_up"]


def test_server_without_sleep_mode_is_refused_before_anything_is_generated(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    fake.can_sleep = False
    with pytest.raises(ControlError, match=r"cannot sleep.*serve engine MODEL --colocated"):
        Colocated(tiny_folder, tmp_path / "run", sandbox, fake).go()
    assert not fake.bodies


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/wake_up?tags=weights", "/wake_up?tags=kv_cache", "/sleep"])
def test_server_without_memory_ends_the_training_which_can_be_resumed(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox, path: str
) -> None:
    straight = run_of(tiny_folder, tmp_path / "straight", sandbox, fake)
    straight.go(CONFIG)
    run = Colocated(tiny_folder, tmp_path / "run", sandbox, fake)

    def full(called: str) -> tuple[int, str] | None:
        is_second = len(run.metrics) == 1 and called.startswith(path)
        return (500, "CUDA error: out of memory") if is_second else None

    fake.faults.control = full
    with pytest.raises(ControlError, match=r"out of memory.*rollout\.memory_share"):
        run.go()
    assert len(run.metrics) == 1
    fake.faults.control = lambda _: None
    del run.trajectories[3:]
    run.go()
    assert run.ids() == straight.ids()
    assert not fake.asleep


@pytest.mark.parametrize("path", ["/wake_up", "/sleep"])
def test_server_that_hangs_ends_the_training_in_bounded_time(
    fake: FakeVllm,
    tiny_folder: Path,
    tmp_path: Path,
    sandbox: Sandbox,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weights are not updated beside a server that may hold its memory still."""
    monkeypatch.setattr(control, "_SWITCH_SECONDS", 0.2)
    run = Colocated(tiny_folder, tmp_path / "run", sandbox, fake)
    ended = threading.Event()

    def hang(called: str) -> None:
        if called.startswith(path) and len(run.metrics) == 1:
            ended.wait(60.0)

    fake.faults.control = hang
    with pytest.raises(ControlError, match=f"{path} gave no answer"):
        run.go()
    ended.set()
    assert len(run.metrics) == 1


@pytest.mark.slow
@pytest.mark.parametrize("when", ["asleep", "falling asleep", "waking up"])
@pytest.mark.parametrize("config", [CONFIG, LORA])
def test_server_that_dies_and_comes_back_is_given_the_weights(
    fake: FakeVllm,
    tiny_folder: Path,
    tmp_path: Path,
    sandbox: Sandbox,
    when: str,
    config: GRPOConfig,
) -> None:
    own = run_of(tiny_folder, tmp_path / "own", sandbox)
    own.go(config)
    run = Colocated(tiny_folder, tmp_path / "run", sandbox, fake, PATIENT)
    died: list[str] = []

    def die(called: str) -> None:
        path = {"falling asleep": "/sleep", "waking up": "/wake_up"}.get(when, "never")
        if called.startswith(path) and len(run.metrics) == 1 and not died:
            died.append(called)
            fake.kill()
            if when == "waking up":
                fake.reborn()

    def be_reborn() -> None:
        died.append("asleep")
        fake.kill()
        fake.reborn()

    fake.faults.control = die
    # A step of several minutes: what starts it again has long done so.
    run.after[2 if when == "falling asleep" else 1] = be_reborn if when != "waking up" else int
    run.go(config)
    assert died
    assert run.ids() == own.ids()
    assert len(run.metrics) == config.steps


def test_server_that_stays_dead_ends_the_training(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    run = Colocated(tiny_folder, tmp_path / "run", sandbox, fake)
    run.after[1] = fake.kill
    with pytest.raises(ControlError, match="gave no answer"):
        run.go()
    assert len(run.metrics) == 1


@pytest.mark.slow
def test_server_that_is_put_to_sleep_while_it_is_asked_is_woken(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    settings = replace(PATIENT, timeout_seconds=1.0)
    run = Colocated(tiny_folder, tmp_path / "run", sandbox, fake, settings)
    put: list[int] = []

    def sleep(number: int, body: dict[str, Any]) -> None:
        if body["sampling_params"]["max_tokens"] > 1 and len(run.metrics) == 1 and not put:
            put.append(number)
            fake.asleep = list(MEMORY)

    fake.faults.before = sleep
    run.go()
    assert put
    assert all(one.is_valid for one in run.trajectories)


def test_episodes_of_a_server_that_cannot_be_woken_are_lost_to_infrastructure(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    """Not scored, not trained on, and in bounded time."""
    settings = replace(QUICK, timeout_seconds=0.5, max_retries=1)
    run = Colocated(tiny_folder, tmp_path / "run", sandbox, fake, settings)

    def sleep(_: int, body: dict[str, Any]) -> None:
        if body["sampling_params"]["max_tokens"] > 1 and not fake.asleep:
            fake.asleep = list(MEMORY)
            fake.faults.control = lambda path: (500, "no memory") if "wake" in path else None

    fake.faults.before = sleep
    with pytest.raises(EpisodesLostError, match="all 3 episodes were lost"):
        run.go()
    assert all(one.ending is Ending.INFRASTRUCTURE for one in run.trajectories)
    assert not run.metrics


@pytest.mark.parametrize(
    "settings", [{"urls": ("http://a", "http://b")}, {"transfer": "nccl"}, {"urls": ()}]
)
def test_one_gpu_has_one_server(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"rollout\.colocated needs one server"):
        ServedRollouts(**{"urls": ("http://a",), "folder": tmp_path, "colocated": True} | settings)


def test_several_processes_do_not_share_one_gpu(
    fake: FakeVllm, tiny_folder: Path, tmp_path: Path
) -> None:
    trained = TrainedModel(tiny_folder, CONFIG, seed=0)
    trained.world = World(0, 2)
    follower = WeightFollower(ServedRollouts((fake.url,), tmp_path, QUICK, colocated=True))
    with pytest.raises(ValueError, match="one process on one GPU, got 2 processes"):
        follower.policy(trained, 0, notes=ModelNotes())
    assert not fake.calls
