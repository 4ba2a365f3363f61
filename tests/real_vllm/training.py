"""A training over a vLLM server of its own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from codedance.envs.types import Task
from codedance.pipelines.config.server_settings import RolloutSettings
from codedance.pipelines.serving.engine.policy import training_engine
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.loop import train_grpo
from codedance.sandbox.types import Sandbox

ON_VLLM = RolloutSettings(engine="vllm")


def train(
    start: Path,
    tasks: Sequence[Task],
    folder: Path,
    sandbox: Sandbox,
    *,
    seed: int = 0,
    rank: int = 0,
    settings: RolloutSettings = ON_VLLM,
    on_trajectories: Callable[..., None] | None = None,
    **changes: Any,
) -> list[dict[str, float]]:
    """Train; return the metrics of each step."""
    config = GRPOConfig(
        steps=6,
        tasks_per_step=6,
        num_generations=8,
        max_new_tokens=160,
        max_tokens=2000,
        learning_rate=1e-3 if rank else 6e-5,
        save_every=6,
        seed=seed,
        lora_r=rank,
    )
    config = replace(config, **changes)
    metrics: list[dict[str, float]] = []
    log = folder / "vllm.log"
    with training_engine(str(start), settings, config=config, log=log, say=print) as served:
        train_grpo(
            start,
            tasks,
            config,
            sandbox=sandbox,
            folder=folder,
            on_step=lambda _, found: metrics.append(dict(found)),
            on_trajectories=on_trajectories,
            served=served,
        )
    return metrics
