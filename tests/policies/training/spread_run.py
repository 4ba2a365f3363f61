"""Trains a tiny model by SFT and by GRPO, in as many processes as are started.

Usage: ``spread_run.py MODEL FOLDER STOP SETTINGS [URL]``; stops both after STOP steps. SETTINGS are
JSON for both, of which SFT takes those that it has; with the URL of a server of vLLM its replies
are trained on, and there is no SFT.
Each step's metrics are a line of ``FOLDER/KIND.jsonl``; each process notes its sandbox, and the
number of models in its memory, as files.
"""

import gc
import json
import os
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from codedance.envs import register_reward_term
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.loop import train_grpo
from codedance.policies.training.grpo.served_rollouts import ServedRollouts
from codedance.policies.training.sft import SFTConfig, train_sft
from codedance.policies.training.training_state import TrainingInterrupted
from codedance.sandbox import open_sandbox
from transformers import Qwen2_5_VLForConditionalGeneration

from policies.players import letters, task
from policies.training.test_sft import DEMONSTRATIONS

SFT = SFTConfig(steps=4, batch_size=5, warmup_steps=1, max_tokens_per_micro_batch=256)
GRPO = GRPOConfig(
    steps=4,
    tasks_per_step=3,
    num_generations=4,
    learning_rate=1e-3,
    max_new_tokens=8,
    max_redraws=1,
    reward="outcome",
    scale_rewards="group",
    beta=0.05,
    max_tokens_per_micro_batch=256,
)

register_reward_term("letters")(letters)


def main(model: str, folder: Path, stop: int, settings: dict[str, Any], *urls: str) -> None:
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    served = ServedRollouts(urls, folder / "handed") if urls else None
    if served is None:
        known = {one.name for one in fields(SFT)}
        shared = {name: value for name, value in settings.items() if name in known}
        play(
            lambda **options: train_sft(
                model, DEMONSTRATIONS, replace(SFT, **shared), folder=folder / "sft", **options
            ),
            folder / "sft.jsonl",
            stop,
        )
    tasks = [task(index) for index in range(7)]
    with open_sandbox("local", libraries=()) as sandbox:
        (folder / f"sandbox-{os.environ.get('RANK', '0')}-{os.getpid()}").write_text(sandbox.tier)
        play(
            lambda **options: train_grpo(
                model,
                tasks,
                replace(GRPO, **settings),
                sandbox=sandbox,
                folder=folder / "grpo",
                served=served,
                **options,
            ),
            folder / "grpo.jsonl",
            stop,
        )


def play(train: Callable[..., Path], log: Path, stop: int) -> None:
    def on_step(step: int, metrics: Any) -> None:
        with log.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")

    def is_over() -> bool:  # called in every process, true only in the first
        models = [
            one for one in gc.get_objects() if type(one) is Qwen2_5_VLForConditionalGeneration
        ]
        log.with_name(f"{log.stem}-models-{os.environ.get('RANK', '0')}").write_text(
            str(len(models))
        )
        return log.exists() and len(log.read_text().splitlines()) >= stop

    try:
        train(on_step=on_step, should_stop=is_over)
    except TrainingInterrupted:
        return


if __name__ == "__main__":
    model, folder, stop, settings, *urls = sys.argv[1:]
    main(model, Path(folder), int(stop), json.loads(settings), *urls)
