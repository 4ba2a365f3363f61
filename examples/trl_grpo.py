"""TRL's GRPOTrainer on our environment. Run: python examples/trl_grpo.py

TRL provides the batches, the advantages within a group, the loss, the optimizer and the logs. We
provide the episodes, which its `rollout_func` plays (several turns, code in the sandbox, exact
ids), and the reward, `score_group`. Its interface does not support two inputs, which a subclass
adds to the trainer's batch: the images that code returned, and an advantage for each turn.
"""

import math
import os
import sys
import tempfile

import torch
from codedance.envs.rewards import score_group
from codedance.envs.rewards.terms import group_reward, group_turn_advantages
from codedance.policies import load_policy, rollout
from codedance.policies.training.grpo.advantages import token_advantages
from codedance.sandbox import open_sandbox
from datasets import Dataset
from guesser import MAX_TURNS, judge, make_guesser, read_options, report, tasks
from transformers import PrinterCallback

# Else TRL warns that rollout_func may change.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
from trl import GRPOConfig, GRPOTrainer

GROUPS, SIBLINGS = 4, 6


def by_group(trajectories, function):
    """Apply a function of siblings to each group; return its results, one per trajectory."""
    starts = range(0, len(trajectories), SIBLINGS)
    return [one for start in starts for one in function(trajectories[start : start + SIBLINGS])]


def score(trajectory, **_):
    """Return the reward of each trajectory among its siblings; None if infrastructure lost it."""
    rewards = [group_reward(terms) for terms in by_group(trajectory, score_group)]
    print(f"reward {sum(rewards) / len(rewards):+.3f}", flush=True)
    return [None if math.isnan(reward) else reward for reward in rewards]


class Rollouts:
    """Generation function for TRL: prompts are ids of tasks, completions are whole episodes."""

    def __init__(self, policy, chosen, sandbox):
        self.policy = policy
        self.tasks = {task.id: task for task in chosen}
        self.sandbox = sandbox

    def __call__(self, prompts, trainer):
        """Play an episode for each prompt with the current weights."""
        wanted = [self.tasks[prompt] for prompt in prompts]
        seed = trainer.state.global_step
        played = rollout(self.policy, wanted, sandbox=self.sandbox, max_turns=MAX_TURNS, seed=seed)
        parts = [(one.tokens, one.tokens.mask.index(True)) for one in played]
        return {
            "prompt_ids": [list(tokens.ids[:begin]) for tokens, begin in parts],
            "completion_ids": [list(tokens.ids[begin:]) for tokens, begin in parts],
            "logprobs": [list(tokens.log_probabilities[begin:]) for tokens, begin in parts],
            "env_mask": [[int(own) for own in tokens.mask[begin:]] for tokens, begin in parts],
            "trajectory": played,  # TRL passes it to the reward and keeps it with its inputs
        }


class TurnwiseTrainer(GRPOTrainer):
    """GRPOTrainer with images from within the episode, and with advantages per turn."""

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        played = [one["trajectory"] for one in inputs]
        return batch | self._pictures(batch, played) | {"advantages": turnwise(batch, played)}

    def _pictures(self, batch, played):
        """Return all images: the question's, and those that code returned."""
        model = self.rollout_func.policy.model
        seen = [
            [image for message in one.conversation() for image in message.images] for one in played
        ]
        seen = [own[: one.tokens.images] for own, one in zip(seen, played, strict=True)]
        every = [image for own in seen for image in own]
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        return {
            **model.pictures.processor(images=every, return_tensors="pt").to(ids.device),
            "num_images": [len(own) for own in seen],
            "mm_token_type_ids": (ids == model.chat.image_id).int(),
        }


def turnwise(batch, played):
    """Return the advantages with each turn's added to its tokens, ``(trajectories, tokens)``."""
    of_turns = by_group(played, group_turn_advantages)
    advantages = torch.zeros(batch["completion_ids"].shape, device=batch["advantages"].device)
    for row, whole, turns, one in zip(
        advantages, batch["advantages"].tolist(), of_turns, played, strict=True
    ):
        own = token_advantages(whole, turns, one.tokens.turn_of)[one.tokens.mask.index(True) :]
        row[: len(own)] = own
    return advantages


def make_trainer(policy, sandbox, *, steps, folder, seed):
    """Set up TRL's trainer on the policy's own weights."""
    chosen = tasks("train", count=GROUPS * steps)
    trainer = TurnwiseTrainer(
        model=policy.model.model,
        processing_class=policy.model.chat.tokenizer,
        reward_funcs=score,
        rollout_func=Rollouts(policy, chosen, sandbox),
        train_dataset=Dataset.from_list([{"prompt": task.id} for task in chosen]),
        args=GRPOConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=GROUPS * SIBLINGS,
            num_generations=SIBLINGS,
            learning_rate=2e-4,
            lr_scheduler_type="constant",
            loss_type="dapo",
            beta=0.0,
            seed=seed,
            use_cpu=policy.model.device.type == "cpu",
            bf16=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        ),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def main():
    """Train the guesser and report whether the held-out reward rose."""
    chosen = read_options(__doc__, steps=20)
    with tempfile.TemporaryDirectory() as folder, open_sandbox("local") as sandbox:
        policy = load_policy(make_guesser(folder))
        before = judge(policy, episodes=chosen.episodes)
        settings = {"steps": chosen.steps, "folder": folder, "seed": chosen.seed}
        make_trainer(policy, sandbox, **settings).train()
    after = judge(policy, episodes=chosen.episodes)
    sys.exit(report("TRL's GRPOTrainer", before, after, least=chosen.least))


if __name__ == "__main__":
    main()
