"""PPO on text in one file: token-level ratios, one value per turn. Run: python examples/ppo_text.py

The algorithm of arXiv 1707.06347 with generalized advantages (arXiv 1506.02438). An action is a
turn's text, so a state is the policy's input before a turn: the value head reads the hidden state
that the turn's first token is sampled from, advantages are estimated over turns from
the environment's stepwise reward, and each token of a turn carries the turn's advantage.
"""

import sys
import tempfile
from dataclasses import dataclass, field

import gymnasium as gym
import torch
from codedance.policies import load_policy
from codedance.policies.interface import Conversation, Sampling
from codedance.policies.training.own_tokens import score_own_tokens
from guesser import FAMILIES, MAX_TURNS, judge, make_guesser, read_options, report
from torch import nn


@dataclass
class Args:
    """Settings of the algorithm."""

    steps: int = 8
    width: int = 24  # environments, each plays one episode per update
    epochs: int = 2
    minibatches: int = 2
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-2
    gamma: float = 1.0  # the rewards of turns and of the answer count equally
    gae_lambda: float = 0.95
    clip: float = 0.2
    value_weight: float = 0.1
    max_grad_norm: float = 1.0
    seed: int = 0


@dataclass
class Episode:
    """Data of one episode, with an advantage and a return for every turn."""

    talk: Conversation
    rewards: list[float] = field(default_factory=list)
    is_valid: bool = True
    old: torch.Tensor | None = None
    advantages: torch.Tensor | None = None
    returns: torch.Tensor | None = None


def play(policy, envs, seed):
    """Play an episode in every environment in parallel and return the valid ones."""
    episodes = []
    for number, env in enumerate(envs):
        env.reset(seed=seed + number)
        talk = Conversation(env.unwrapped.episode.messages, seed=seed + number)
        episodes.append(Episode(talk))
    going = list(zip(envs, episodes, strict=True))
    while going:
        replies = policy.reply([one.talk for _, one in going], sampling=Sampling())
        still = []
        for (env, one), reply in zip(going, replies, strict=True):
            _, reward, terminated, truncated, info = env.step(reply.text)
            one.talk.turn += 1
            one.rewards.append(reward)
            one.is_valid = info["is_valid"]
            if not (terminated or truncated):
                still.append((env, one))
        going = still
    return [one for one in episodes if one.is_valid]


def values_of(head, own):
    """Return the value of the state before each turn, ``(turns,)``."""
    firsts = [int((own.turns == turn).nonzero()[0]) for turn in own.turns.unique()]
    return head(own.states[firsts]).squeeze(-1)


def estimate(rewards, values, args):
    """Return advantages and returns of an episode's turns; the value after the last is 0."""
    advantages = torch.zeros(len(rewards))
    following, later = 0.0, 0.0
    for turn in reversed(range(len(rewards))):
        error = rewards[turn] + args.gamma * later - values[turn]
        following = error + args.gamma * args.gae_lambda * following
        advantages[turn], later = following, values[turn]
    return advantages, advantages + values


@torch.no_grad()
def record_targets(policy, head, episodes, args):
    """Record log-probabilities, advantages and returns before any update."""
    for one, own in zip(
        episodes,
        score_own_tokens(policy.model, [one.talk for one in episodes]),
        strict=True,
    ):
        one.old = own.log_probabilities
        one.advantages, one.returns = estimate(one.rewards, values_of(head, own), args)
    every = torch.cat([one.advantages for one in episodes])
    for one in episodes:
        one.advantages = (one.advantages - every.mean()) / (every.std() + 1e-8)


def loss_of(policy, head, episodes, args):
    """Return the clipped policy loss per token plus the squared value error per turn."""
    policy_losses, value_losses = [], []
    for one, own in zip(
        episodes,
        score_own_tokens(policy.model, [one.talk for one in episodes]),
        strict=True,
    ):
        ratio = (own.log_probabilities - one.old).exp()
        advantage = one.advantages[own.turns]
        bounded = ratio.clamp(1 - args.clip, 1 + args.clip)
        policy_losses.append(-torch.minimum(ratio * advantage, bounded * advantage))
        value_losses.append((values_of(head, own) - one.returns).square())
    return torch.cat(policy_losses).mean() + args.value_weight * torch.cat(value_losses).mean()


def learn(policy, args):
    """Alternate between playing episodes and updating the policy."""
    name = "codedance.envs:codedance/VisualCode-v0"
    settings = {"families": FAMILIES, "max_turns": MAX_TURNS, "system_prompt": policy.system_prompt}
    envs = [gym.make(name, **settings) for _ in range(args.width)]
    generator = torch.Generator().manual_seed(args.seed)
    network = policy.model.model
    head = nn.Linear(network.config.get_text_config().hidden_size, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    groups = [
        {"params": network.parameters(), "lr": args.learning_rate},
        {"params": head.parameters(), "lr": args.head_learning_rate},
    ]
    optimiser = torch.optim.AdamW(groups)
    for update in range(args.steps):
        episodes = play(policy, envs, args.seed + update * args.width)
        record_targets(policy, head, episodes, args)
        for _ in range(args.epochs):
            order = torch.randperm(len(episodes), generator=generator)
            for part in order.chunk(args.minibatches):
                loss = loss_of(policy, head, [episodes[int(i)] for i in part], args)
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), args.max_grad_norm)
                optimiser.step()
        mean = sum(sum(one.rewards) for one in episodes) / len(episodes)
        print(f"update {update + 1}/{args.steps}   reward {mean:+.3f}", flush=True)
    for env in envs:
        env.close()


def main():
    """Train the guesser and report whether the held-out reward rose."""
    chosen = read_options(__doc__, steps=Args.steps)
    with tempfile.TemporaryDirectory() as folder:
        policy = load_policy(make_guesser(folder))
    before = judge(policy, episodes=chosen.episodes)
    learn(policy, Args(steps=chosen.steps, seed=chosen.seed))
    after = judge(policy, episodes=chosen.episodes)
    sys.exit(report("PPO", before, after, least=chosen.least))


if __name__ == "__main__":
    main()
