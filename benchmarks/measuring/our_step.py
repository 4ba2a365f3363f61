"""A complete GRPO step of our trainer: rollout, rewards, advantages, update."""

from __future__ import annotations

import time
from collections.abc import Sequence

from codedance.envs.types import Task, Trajectory
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.loop import GRPORun

from .episodes import MAX_NEW_TOKENS, MAX_TURNS, PausingSandbox, Played


class OurStep:
    """A step of our trainer, including its rollout.

    Args:
        source: Folder of the model.
        sandbox: Sandbox of the tool.
    """

    name = "ours"

    def __init__(self, source: str, sandbox: PausingSandbox) -> None:
        self._source = source
        self._sandbox = sandbox
        self._run: GRPORun | None = None

    def play(self, tasks: Sequence[Task], samples: int, seed: int) -> Played:
        """Take one step on ``samples`` trajectories per task."""
        if self._run is None:
            config = GRPOConfig(
                steps=10_000,
                tasks_per_step=len(tasks),
                num_generations=samples,
                learning_rate=1e-12,  # the weights hardly change, the work is the same
                reward="outcome",
                max_redraws=0,
                max_new_tokens=MAX_NEW_TOKENS,
                max_turns=MAX_TURNS,
            )
            self._run = GRPORun(self._source, tasks, config, sandbox=self._sandbox)
        found: list[Trajectory] = []
        begun = time.perf_counter()
        self._run.step(seed, lambda _, trajectories: found.extend(trajectories))
        seconds = time.perf_counter() - begun
        tokens = sum(sum(one.tokens.mask) for one in found if one.tokens is not None)
        return Played(seconds, tokens, len(found))
