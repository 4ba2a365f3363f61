"""A real vLLM replies while weights are updated: under load, with images, whole and by adapters."""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from codedance.envs import load_suite
from codedance.envs.types import Trajectory
from codedance.policies.loading import NANO_FOLDER
from codedance.policies.training.grpo.asynchronous.weight_age import steps_behind
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.served_rollouts import WeightFollower
from codedance.policies.training.grpo.task_order.task_draws import TaskDraws
from codedance.sandbox import Execution
from codedance.sandbox.types import Sandbox, Session
from PIL import Image

from .training import train

pytestmark = pytest.mark.vllm
_figures = logging.getLogger("figures")


class Held:
    """A sandbox that runs the blocks of some images only when it is told to."""

    def __init__(self, real: Sandbox, images: Sequence[Image.Image], go_on: threading.Event):
        self.real, self.go_on = real, go_on
        self.held = {image.tobytes() for image in images}
        self.tier = real.tier

    def session(self, images: Sequence[Image.Image] = (), *, seed: int = 0) -> Session:
        found = self.real.session(images, seed=seed)
        if not any(one.tobytes() in self.held for one in images):
            return found
        run, go_on = found.run, self.go_on

        class Waiting:
            def run(self, block: str) -> Execution:
                assert go_on.wait(300.0)
                return run(block)

            def __getattr__(self, name: str) -> Any:
                return getattr(found, name)

        return Waiting()  # type: ignore[return-value]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.mark.parametrize("rank", [0, 8])
def test_training_that_does_not_wait_is_exact_in_its_newest_tokens(
    sandbox: Sandbox, tmp_path: Path, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tools of the second step wait for the first update, so that its episodes go on after it."""
    suite = load_suite("nano", split="train")
    tasks = [suite[index] for index in range(60)]
    draws = TaskDraws(tasks, GRPOConfig())
    second = [draws.next() for _ in range(12)][6:]
    is_updated = threading.Event()
    hand_over = WeightFollower.policy

    def policy(follower: WeightFollower, trained: Any, step: int, **options: Any) -> Any:
        found = hand_over(follower, trained, step, **options)
        if step:
            is_updated.set()
        return found

    monkeypatch.setattr(WeightFollower, "policy", policy)
    ages: dict[int, list[tuple[int, ...]]] = {}

    def played(step: int, found: Sequence[Trajectory]) -> None:
        spans = [one.tokens.weight_versions for one in found if one.tokens is not None]
        ages[step] = [tuple(steps_behind(step - 1, one.version) for one in some) for some in spans]

    metrics = train(
        Path(NANO_FOLDER),
        tasks,
        tmp_path,
        Held(sandbox, [image for one in second for image in one.images], is_updated),  # type: ignore[arg-type]
        rank=rank,
        on_trajectories=played,
        steps=5,
        max_staleness=2,
        max_redraws=0,
    )
    assert all(0 <= age <= 2 for step in ages.values() for some in step for age in some)
    mixed = [some for some in ages[2] if len(set(some)) > 1]
    assert mixed  # they went on with the weights of the first update
    for one in metrics:
        assert one["infrastructure_share"] == 0.0
        assert one["groups_dropped"] == 0.0
        assert one["engine/handshake_max"] < 1e-4
        assert one.get("sampling_logp_difference/behind_0/max", 0.0) < 1e-4
    assert metrics[1]["sampled_share/behind_0"] > 0.0
    _figures.warning(f"rank {rank}: {len(mixed)} of {len(ages[2])} episodes of step 2 went on")
    for name in ("behind_0/max", "behind_1/max", "behind_2/max"):
        found = [one.get(f"sampling_logp_difference/{name}", 0.0) for one in metrics]
        _figures.warning(f"rank {rank}: {name} {[f'{value:.1e}' for value in found]}")
