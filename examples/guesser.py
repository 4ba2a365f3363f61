"""Initial model and evaluation of the training examples: a nano model trained to guess.

The shipped checkpoint runs code where it cannot see the answer. A few steps of SFT on bare answers
make it guess instead; it can still measure and crop, and reinforcement learning has to recover
that. Run: python examples/guesser.py
"""

import argparse
import math
import tempfile
from pathlib import Path

import torch
from codedance.envs import load_suite
from codedance.envs.rewards.terms import is_scored, score_trajectory
from codedance.envs.suites.filtered import ChosenFamilies
from codedance.pipelines.analysis.statistics import paired_difference
from codedance.policies import load_policy, rollout
from codedance.policies.loading import NANO_FOLDER
from codedance.policies.scripted.teacher import direct_demonstration
from codedance.policies.training.sft import SFTConfig, train_sft
from codedance.sandbox import open_sandbox

FAMILIES = ("bars", "digit")
"""The first is measured by code that prints, the second is read from a returned crop."""
MAX_TURNS = 3


def tasks(split, *, count, start=0):
    """Return tasks that alternate between the families."""
    suite = ChosenFamilies(load_suite("nano", split=split), FAMILIES)
    return [suite[start + number] for number in range(count)]


def read_options(about, *, steps):
    """Return the options of every training example."""
    options = argparse.ArgumentParser(description=about.splitlines()[0])
    options.add_argument("--steps", type=int, default=steps, help="number of updates")
    options.add_argument("--episodes", type=int, default=64, help="held-out evaluation episodes")
    options.add_argument("--least", type=float, default=0.2, help="minimum rise of the reward")
    options.add_argument("--seed", type=int, default=0, help="random seed of tasks and sampling")
    return options.parse_args()


def make_guesser(folder):
    """Train the shipped model to guess and return its checkpoint folder."""
    torch.set_num_threads(1)
    shown = [direct_demonstration(task) for task in tasks("train", count=128, start=100_000)]
    config = SFTConfig(steps=20, batch_size=16, learning_rate=2e-4, warmup_steps=1)
    return train_sft(NANO_FOLDER, shown, config, folder=Path(folder))


def judge(policy, *, episodes):
    """Sample an episode on each held-out task and return the environment's reward of each."""
    with open_sandbox("local") as sandbox:
        held_out = tasks("test", count=episodes)
        played = rollout(policy, held_out, sandbox=sandbox, max_turns=MAX_TURNS, seed=1)
    rewards = []
    for one in played:
        terms = score_trajectory(one, group_accuracy=0.5, reward="bat")
        rewards.append(sum(terms.values()) if is_scored(one) else math.nan)
    return rewards


def report(name, before, after, *, least):
    """Print rewards before and after; return 1 if they did not rise by ``least``, else 0."""
    pairs = [
        pair for pair in zip(before, after, strict=True) if not any(math.isnan(v) for v in pair)
    ]
    gain = paired_difference(*zip(*pairs, strict=True))
    first, last = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    print(
        f"{name}: reward {first:+.3f} before, {last:+.3f} after, {gain.mean:+.3f} "
        f"(95 %: {gain.low:+.3f} to {gain.high:+.3f}) on {gain.count} held-out tasks"
    )
    has_risen = gain.mean >= least and gain.low > 0.0
    print(f"{'risen' if has_risen else 'NOT risen'} by at least {least}")
    return 0 if has_risen else 1


def main():
    """Compare the guesser with the shipped model."""
    with tempfile.TemporaryDirectory() as folder:
        guesser = load_policy(make_guesser(folder))
    before, after = (judge(policy, episodes=64) for policy in (guesser, load_policy("nano")))
    report("guesser against the shipped model", before, after, least=0.2)


if __name__ == "__main__":
    main()
