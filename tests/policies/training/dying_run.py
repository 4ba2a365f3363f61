"""Trains a tiny model by SFT and then by GRPO, in a process that a test kills at any time.

Usage: ``dying_run.py MODEL FOLDER``; writes each step's metrics as a line of ``FOLDER/log.jsonl``.
"""

import json
import sys
from pathlib import Path

import torch
from codedance.envs import register_reward_term
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.loop import train_grpo
from codedance.policies.training.sft import SFTConfig, train_sft
from codedance.sandbox import open_sandbox

from policies.players import letters, task
from policies.training.test_sft import DEMONSTRATIONS

SFT = SFTConfig(steps=6, batch_size=4, warmup_steps=1, save_every=2, muon_factor=0.5)
GRPO = GRPOConfig(
    steps=5,
    tasks_per_step=2,
    num_generations=4,
    num_iterations=2,
    learning_rate=1e-3,
    max_new_tokens=8,
    max_redraws=1,
    save_every=2,
    reward="outcome",
    scale_rewards="group",
    beta=0.05,
    lora_r=2,
    lora_dropout=0.1,
)

register_reward_term("letters")(letters)


def main(model: str, folder: Path) -> None:
    torch.set_num_threads(1)

    def log(stage: str):
        def on_step(step, metrics) -> None:
            with (folder / "log.jsonl").open("a") as file:
                file.write(json.dumps({"stage": stage, "step": step, **metrics}) + "\n")

        return on_step

    begun = train_sft(model, DEMONSTRATIONS, SFT, folder=folder / "sft", on_step=log("sft"))
    with open_sandbox("local") as sandbox:
        train_grpo(
            begun,
            [task(index) for index in range(7)],
            GRPO,
            sandbox=sandbox,
            folder=folder / "grpo",
            on_step=log("grpo"),
        )
    (folder / "done").touch()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
