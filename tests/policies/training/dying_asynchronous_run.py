"""Trains a tiny model on a server that replies ahead, in a process that a test kills at any time.

Usage: ``dying_asynchronous_run.py MODEL FOLDER``; writes the tasks of each step, when all of its
replies are there, as a line of ``FOLDER/log.jsonl``.
"""

import json
import sys
from pathlib import Path

import torch
from codedance.envs import register_reward_term
from codedance.policies.models.model_folder import load_token_model
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.loop import train_grpo
from codedance.policies.training.grpo.served_rollouts import ServedRollouts
from codedance.sandbox import open_sandbox

from policies.inference.vllm.fake_vllm import FakeVllm
from policies.players import letters, task

CONFIG = GRPOConfig(
    steps=8,
    tasks_per_step=2,
    num_generations=3,
    learning_rate=1e-3,
    max_new_tokens=8,
    max_redraws=0,
    max_staleness=2,
    save_every=2,
    curriculum="learnability",
    reward="outcome",
)

register_reward_term("letters")(letters)


def main(model: str, folder: Path) -> None:
    torch.set_num_threads(1)

    def log(step, found) -> None:
        with (folder / "log.jsonl").open("a") as file:
            tasks = sorted(one.task_id for one in found)
            file.write(json.dumps({"stage": "grpo", "step": step, "tasks": tasks}) + "\n")

    with FakeVllm(load_token_model(model)) as fake, open_sandbox("local") as sandbox:
        train_grpo(
            model,
            [task(index) for index in range(7)],
            CONFIG,
            sandbox=sandbox,
            folder=folder / "grpo",
            on_trajectories=log,
            served=ServedRollouts((fake.url,), folder / "handed"),
        )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
