"""One REINFORCE update from exact ids, whichever trainer's rollout they come from."""

import math
from dataclasses import dataclass

import torch
from codedance.policies.models.token_model import PicturedIds
from codedance.policies.training.batches import pad_flags


@dataclass
class Sample:
    """An episode as a trainer keeps it.

    Attributes:
        ids: Ids of the whole episode.
        mask: Which ids the policy wrote.
        images: All images that it saw.
        reward: Reward; NaN if infrastructure lost the episode.
        log_probabilities: Log-probability of each id when it was sampled, 0 for those not written.
    """

    ids: list
    mask: list
    images: list
    reward: float
    log_probabilities: list


def scores(model, samples):
    """Return the log-probabilities of each sample's own ids under the current weights."""
    batch = model.pad([PicturedIds(tuple(one.ids), one.images) for one in samples])
    chosen = pad_flags([one.mask for one in samples], length=batch.ids.shape[1])
    found = model.log_probabilities(batch, chosen, temperature=1.0)
    return found.split([sum(one.mask) for one in samples])


def update(policy, optimiser, samples):
    """Update the weights; a lost episode enters neither the mean nor the loss. Return the mean."""
    kept = [one for one in samples if not math.isnan(one.reward)]
    rewards = torch.tensor([one.reward for one in kept])
    own = torch.stack([part.sum() for part in scores(policy.model, kept)])
    loss = -((rewards - rewards.mean()) * own).mean()
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.model.model.parameters(), 1.0)
    optimiser.step()
    return float(rewards.mean())


def train(policy, play, *, steps, learning_rate=2e-4):
    """Alternate rollouts, ``play(step)``, and updates."""
    optimiser = torch.optim.AdamW(policy.model.model.parameters(), lr=learning_rate)
    for step in range(steps):
        mean = update(policy, optimiser, play(step))
        print(f"step {step + 1}/{steps}   reward {mean:+.3f}", flush=True)
