"""TRL's GRPO trainer on the same episodes: its generation and its update, our environment.

TRL does not support turns of fenced code for this model family; a subclass plays them: each turn is
one call of TRL's own `_generate_single_turn`, tools run in threads (TRL runs them one by one), and
everything after it (log-probabilities, loss, update) is TRL's, unchanged.
"""

from __future__ import annotations

import importlib
import tempfile
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from codedance.envs.grading import grade
from codedance.envs.types import Ending, Task
from codedance.policies.models.model_folder import load_token_model, read_notes

from .episodes import (
    MAX_NEW_TOKENS,
    PausingSandbox,
    Played,
    Transcript,
    open_episodes,
    play_turns,
)
from .generators import cut_after, picture_inputs, without_bars
from .peers import Missing

if TYPE_CHECKING:
    from codedance.policies.rollouts.running_episode import RunningEpisode
    from PIL import Image


class TRLTrainer:
    """A step of TRL's trainer: sampling of and training on 64 trajectories.

    Args:
        source: Folder of the model.
        sandbox: Sandbox of the tool.

    Raises:
        Missing: TRL is not installed.
    """

    name = "TRL's GRPOTrainer"

    def __init__(self, source: str, sandbox: PausingSandbox) -> None:
        try:
            self._trl: Any = importlib.import_module("trl")
            self._datasets: Any = importlib.import_module("datasets")
        except ImportError as error:
            raise Missing(f"{error}; pip install trl") from error
        self._source = source
        self._sandbox = sandbox
        self._folder = tempfile.TemporaryDirectory(prefix="codedance-bench-")
        self._trainer: Any = None

    def play(self, tasks: Sequence[Task], samples: int, seed: int) -> Played:
        """Take one step on ``samples`` trajectories per task."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._trainer is None:
                self._trainer = self._build(tasks, samples)
            trainer = self._trainer
            torch.manual_seed(seed)
            trainer.args.seed = seed
            trainer.train()
        return trainer.played

    def close(self) -> None:
        """Remove the trainer's files."""
        self._folder.cleanup()

    def _build(self, tasks: Sequence[Task], samples: int) -> Any:  # noqa: ANN401 - TRL's class
        ours = load_token_model(self._source)
        from transformers import AutoModelForImageTextToText

        with without_bars():
            network: Any = AutoModelForImageTextToText.from_pretrained(self._source, dtype="auto")
        tokenizer: Any = ours.chat.tokenizer
        tokenizer.image_processor = ours.pictures.processor  # TRL looks for it there
        size = len(tasks) * samples
        arguments = self._trl.GRPOConfig(
            output_dir=self._folder.name,
            per_device_train_batch_size=size,
            num_generations=samples,
            max_steps=1,
            learning_rate=1e-12,  # the weights hardly change, the work is the same
            max_completion_length=MAX_NEW_TOKENS,
            loss_type="dapo",
            beta=0.0,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            bf16=False,
            use_cpu=ours.device.type == "cpu",
            generation_kwargs={
                "suppress_tokens": [n for n, ok in enumerate(ours.allowed().tolist()) if not ok],
                "eos_token_id": ours.chat.end_id,
                "pad_token_id": ours.chat.end_id,
                "top_k": 0,
            },
        )
        rows = [{"prompt": str(number)} for number in range(len(tasks))]
        trainer = _subclass(self._trl.GRPOTrainer)(
            model=network,
            reward_funcs=lambda completions, **_: list(trainer.rewards),
            args=arguments,
            train_dataset=self._datasets.Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        from transformers import PrinterCallback

        trainer.remove_callback(PrinterCallback)
        trainer.ours, trainer.tasks, trainer.sandbox = ours, tasks, self._sandbox
        trainer.max_pixels = read_notes(self._source).max_pixels
        return trainer


def _subclass(base: Any) -> Any:  # noqa: ANN401 - TRL's class, known once it is imported
    class PlayingTrainer(base):
        """TRL's trainer with a rollout in our episodes."""

        def training_step(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - TRL's own
            begun = time.perf_counter()
            loss = super().training_step(*arguments, **options)
            self.accumulated = time.perf_counter() - begun
            return loss

        def train(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - TRL's own
            result = super().train(*arguments, **options)
            self.played = Played(self.accumulated, self.drawn, self.count)
            return result

        def _generate_and_score_completions(self, inputs: Any) -> Any:  # noqa: ANN401 - TRL's own
            try:
                return super()._generate_and_score_completions(inputs)
            finally:
                self.tools, self._is_vlm = [], False

        def _generate(self, prompts: Sequence[str]) -> tuple[Any, ...]:
            self.tools, self._is_vlm = [], False
            episodes = [
                one
                for prompt in prompts
                for one in open_episodes(
                    [self.tasks[int(prompt)]], 1, self.sandbox, max_pixels=self.max_pixels
                )
            ]
            scripts = play_turns(episodes, self.ours.chat, self._write)
            self.rewards = [_reward(one) for one in episodes]
            self.drawn, self.count = sum(sum(one.own) for one in scripts), len(scripts)
            # From here on TRL treats them like the output of its own loop with tools and images.
            self.tools, self._is_vlm = [_reward], True
            self._image_pad_token_id, self._video_pad_token_id = self.ours.chat.image_id, None
            return _as_generated(scripts, episodes)

        def _write(
            self, ids: Sequence[Sequence[int]], images: Sequence[Sequence[Image.Image]]
        ) -> list[list[int]]:
            image_id, end = self.ours.chat.image_id, self.ours.chat.end_id
            fields: dict[str, Any] = picture_inputs(
                self.ours, [image for own in images for image in own]
            )
            fields["mm_token_type_ids"] = [[int(n == image_id) for n in own] for own in ids]
            written, _ = self._generate_single_turn([list(own) for own in ids], None, fields, 1)
            return [cut_after(row, end) for row in written]

    return PlayingTrainer


def _as_generated(
    scripts: Sequence[Transcript], episodes: Sequence[RunningEpisode]
) -> tuple[Any, ...]:
    """Return the output of TRL's own tool loop: prompts, completions, mask, images."""
    pairs = zip(scripts, episodes, strict=True)
    images = [script.images(one.conversation) for script, one in pairs]
    return (
        [script.ids[: script.begin] for script in scripts],
        [script.ids[script.begin :] for script in scripts],
        [[int(own) for own in script.own[script.begin :]] for script in scripts],
        ["" for _ in scripts],
        None,
        {},
        images,
        images,
    )


def _reward(one: RunningEpisode) -> float:
    """Return the reward of the preset ``outcome``."""
    if one.episode.ending is not Ending.ANSWERED:
        return -0.2
    return float(grade(one.episode.task, one.episode.turns[-1].action.content) or 0.0)
