"""REINFORCE (Williams, 1992) on plain Gymnasium environments. Run: python examples/reinforce.py"""

import sys
import tempfile

import gymnasium as gym
import torch
from codedance.policies import load_policy
from codedance.policies.interface import Conversation, Sampling
from codedance.policies.training.own_tokens import score_own_tokens
from guesser import FAMILIES, MAX_TURNS, judge, make_guesser, read_options, report


def play(policy, envs, seed):
    """Play an episode in every environment; return the valid conversations and their returns."""
    talks, returns, going = [], [0.0] * len(envs), dict(enumerate(envs))
    for number, env in going.items():
        env.reset(seed=seed + number)
        talks.append(Conversation(env.unwrapped.episode.messages, seed=seed + number))
    while going:
        replies = policy.reply([talks[number] for number in going], sampling=Sampling())
        for (number, env), reply in zip(list(going.items()), replies, strict=True):
            _, reward, terminated, truncated, info = env.step(reply.text)
            talks[number].turn += 1
            returns[number] += reward if info["is_valid"] else float("nan")
            if terminated or truncated:
                del going[number]
    kept = [number for number, value in enumerate(returns) if value == value]
    return [talks[number] for number in kept], torch.tensor([returns[number] for number in kept])


def learn(policy, *, steps, width, learning_rate, seed):
    """Update the policy with the returns, less their mean, as weights of the log-probabilities."""
    name = "codedance.envs:codedance/VisualCode-v0"
    settings = {"families": FAMILIES, "max_turns": MAX_TURNS, "system_prompt": policy.system_prompt}
    envs = [gym.make(name, **settings) for _ in range(width)]
    optimiser = torch.optim.AdamW(policy.model.model.parameters(), lr=learning_rate)
    for step in range(steps):
        talks, returns = play(policy, envs, seed + step * width)
        scores = [own.log_probabilities.sum() for own in score_own_tokens(policy.model, talks)]
        loss = -((returns - returns.mean()) * torch.stack(scores)).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.model.model.parameters(), 1.0)
        optimiser.step()
        print(f"step {step + 1}/{steps}   reward {returns.mean():+.3f}", flush=True)
    for env in envs:
        env.close()


def main():
    """Train the guesser and report whether the held-out reward rose."""
    chosen = read_options(__doc__, steps=14)
    with tempfile.TemporaryDirectory() as folder:
        policy = load_policy(make_guesser(folder))
    before = judge(policy, episodes=chosen.episodes)
    learn(policy, steps=chosen.steps, width=24, learning_rate=2e-4, seed=chosen.seed)
    after = judge(policy, episodes=chosen.episodes)
    sys.exit(report("REINFORCE", before, after, least=chosen.least))


if __name__ == "__main__":
    main()
