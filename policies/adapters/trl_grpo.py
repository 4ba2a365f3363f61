"""Episodes, reward and trainer for TRL's `GRPOTrainer` (tested with 1.16.0).

`Rollouts` is TRL's ``rollout_func``: it plays whole episodes with our engine on the weights that
TRL trains. Its `score` is TRL's reward function, which scores siblings together (`score_group`).
TRL's interface does not support two inputs, which the subclass `VisualCodeTrainer` adds to a batch:
the images that code returned, and an advantage for each turn. An episode that our infrastructure
lost has a reward of None and an empty mask: it enters neither baseline, nor loss, nor its length.

Both additions override a private method of TRL, so pin its version. Leave ``num_iterations`` at 1,
``beta`` at 0, and the siblings of a group in one process.

Importing this module loads neither TRL nor torch; the class is created on first access.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from ...envs.episode_factory import EpisodeHost, Record, episode_record
from ...envs.rewards import score_group
from ...envs.rewards.terms import group_reward, group_turn_advantages, is_scored
from ...envs.types import Task, Trajectory

if TYPE_CHECKING:
    from torch import Tensor

    from ..inference.vlm import VisionLanguagePolicy

__all__ = ["Rollouts", "VisualCodeTrainer", "prompts"]  # noqa: F822  # pyright: ignore[reportUnsupportedDunderAll]

_Result = TypeVar("_Result")


def prompts(tasks: Sequence[Task]) -> list[dict[str, str]]:
    """Return the rows of TRL's data set: a prompt is the id of a task."""
    return [{"prompt": task.id} for task in tasks]


class Rollouts:
    """Generation function and reward function for TRL.

    Args:
        policy: Policy on the model that TRL trains; its notes state prompt and interface.
        host: Host of the tasks and the sandbox; its settings name the reward and the turn limit.

    Attributes:
        records: What is kept of each episode of the last batch (`episode_record`), in its order.
    """

    def __init__(self, policy: VisionLanguagePolicy, host: EpisodeHost) -> None:
        self.policy = policy
        self.host = host
        self.reward = host.settings.reward
        self.records: list[Record] = []
        self._siblings = 1

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, list[Any]]:  # noqa: ANN401 - TRL's
        """Play an episode for each prompt with the current weights."""
        from ..rollouts.runner import rollout

        is_training = trainer.model.training
        self._siblings = trainer.num_generations if is_training else trainer.num_generations_eval
        wanted = [self.host.suite.task(prompt) for prompt in prompts]
        played = rollout(
            self.policy,
            wanted,
            sandbox=self.host.sandbox,
            max_turns=self.host.settings.max_turns,
            seed=trainer.args.seed + trainer.state.global_step,
        )
        parts = [self._split(one) for one in played]
        return {
            "prompt_ids": [ids[:begin] for ids, _, _, begin in parts],
            "completion_ids": [ids[begin:] for ids, _, _, begin in parts],
            "logprobs": [scores[begin:] for _, scores, _, begin in parts],
            "env_mask": [mask[begin:] for _, _, mask, begin in parts],
            "trajectory": played,  # TRL passes it to the reward and keeps it with its inputs
        }

    def score(self, trajectory: Sequence[Trajectory], **_: Any) -> list[float | None]:  # noqa: ANN401 - TRL's
        """Return each trajectory's reward among its siblings; None if infrastructure lost it."""
        terms = self.by_group(trajectory, lambda own: score_group(own, reward=self.reward))
        self.records = [
            episode_record(
                one,
                {name: value for name, value in given.items() if value is not None}
                if is_scored(one)
                else None,
            )
            for one, given in zip(trajectory, terms, strict=True)
        ]
        rewards = [group_reward(given) for given in terms]
        return [None if math.isnan(reward) else reward for reward in rewards]

    def by_group(
        self,
        played: Sequence[Trajectory],
        function: Callable[[Sequence[Trajectory]], Sequence[_Result]],
    ) -> list[_Result]:
        """Apply a function of siblings to each group; return its results, one per trajectory."""
        starts = range(0, len(played), self._siblings)
        groups = (played[start : start + self._siblings] for start in starts)
        return [one for group in groups for one in function(group)]

    def turn_advantages(self, played: Sequence[Trajectory]) -> list[list[float]]:
        """Return the advantage of each turn of each trajectory among its siblings."""
        return self.by_group(played, lambda own: group_turn_advantages(own, reward=self.reward))

    def _split(self, one: Trajectory) -> tuple[list[int], list[float], list[int], int]:
        """Return ids, log-probabilities, mask and the place of the first id that was written."""
        if one.tokens is None:  # lost before its first reply
            chat = self.policy.model.chat
            ids = chat.open_prompt(one.opening)
            return [*ids, chat.end_id], [0.0] * (len(ids) + 1), [0] * (len(ids) + 1), len(ids)
        counts = is_scored(one)
        mask = [int(own and counts) for own in one.tokens.mask]
        begin = one.tokens.mask.index(True)
        return list(one.tokens.ids), list(one.tokens.log_probabilities), mask, begin


def turnwise(
    batch: Mapping[str, Tensor],
    played: Sequence[Trajectory],
    of_turns: Sequence[Sequence[float]],
) -> Tensor:
    """Return TRL's advantages with each turn's added to its tokens, ``(trajectories, tokens)``.

    Args:
        batch: TRL's batch: ``advantages``, ``(trajectories,)``, and ``completion_ids``.
        played: Trajectories of the batch.
        of_turns: Advantage of each turn of each trajectory.
    """
    import torch

    from ..training.grpo.advantages import token_advantages

    advantages = torch.zeros(batch["completion_ids"].shape, device=batch["advantages"].device)
    for row, whole, turns, one in zip(
        advantages, batch["advantages"].tolist(), of_turns, played, strict=True
    ):
        if one.tokens is not None:
            own = token_advantages(whole, turns, one.tokens.turn_of)[one.tokens.mask.index(True) :]
            row[: len(own)] = own
    return advantages


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class, created on first access
    if name != "VisualCodeTrainer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _trainer_class()


@cache
def _trainer_class() -> Any:  # noqa: ANN401 - TRL's untyped class
    import torch

    trl: Any = import_module("trl")

    class VisualCodeTrainer(trl.GRPOTrainer):
        """`GRPOTrainer` with images from within the episode, and with advantages per turn."""

        def _generate_and_score_completions(self, inputs: Any) -> Any:  # noqa: ANN401 - TRL's
            batch = super()._generate_and_score_completions(inputs)
            played = [one["trajectory"] for one in inputs]
            of_turns = self.rollout_func.turn_advantages(played)
            added = {"advantages": turnwise(batch, played, of_turns)}
            return batch | self._pictures(batch, played) | added

        def _pictures(self, batch: Any, played: Sequence[Trajectory]) -> dict[str, Any]:  # noqa: ANN401
            """Return all images: the question's, and those that code returned."""
            model = self.rollout_func.policy.model
            seen = [_images(one) for one in played]
            ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
            every = [image for own in seen for image in own]
            return {
                **model.pictures.processor(images=every, return_tensors="pt").to(ids.device),
                "num_images": [len(own) for own in seen],
                "mm_token_type_ids": (ids == model.chat.image_id).int(),
            }

    return VisualCodeTrainer


def _images(one: Trajectory) -> list[Any]:
    """Return the images whose tokens the policy read."""
    seen = [image for message in one.conversation() for image in message.images]
    return seen if one.tokens is None else seen[: one.tokens.images]
