"""Custom algorithms get the policy's tokens as sampled, with gradients."""

import pytest
import torch
from codedance.envs.types import Message
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.interface import Conversation, Sampling
from codedance.policies.training.own_tokens import score_own_tokens

from ..tiny import noise


@pytest.fixture
def talks(tiny_model):
    """Two conversations of two turns, with different images and lengths."""
    policy = VisionLanguagePolicy(tiny_model, policy_id="tiny")
    found = [
        Conversation([Message("user", (noise(seed), "What is it?" * seed))], seed=seed)
        for seed in (1, 3)
    ]
    for turn in range(2):
        for one, limit in zip(found, (5, 9), strict=True):
            (reply,) = policy.reply([one], sampling=Sampling(max_new_tokens=limit))
            one.messages.append(Message("assistant", (reply.text,)))
            one.turn += 1
            if turn == 0:
                one.messages.append(Message("user", ("Look:", noise(one.seed + 10))))
    return found


def test_scores_equal_those_recorded_at_sampling(tiny_model, talks):
    for own, talk in zip(score_own_tokens(tiny_model, talks), talks, strict=True):
        drawn = [
            score
            for score, mine in zip(talk.tokens.log_probabilities, talk.tokens.mask, strict=True)
            if mine
        ]
        assert own.log_probabilities.tolist() == pytest.approx(drawn, abs=1e-4)


def test_each_token_has_its_turn_and_the_state_it_was_sampled_from(tiny_model, talks):
    for own, talk in zip(score_own_tokens(tiny_model, talks), talks, strict=True):
        assert own.turns.tolist() == [turn for turn in talk.tokens.turn_of if turn >= 0]
        assert set(own.turns.tolist()) == {0, 1}
        ids = torch.tensor(talk.tokens.ids)[torch.tensor(talk.tokens.mask)]
        logits = tiny_model.logits(own.states).masked_fill(~tiny_model.allowed(), -torch.inf)
        again = logits.log_softmax(-1).gather(1, ids[:, None]).squeeze(1)
        assert torch.allclose(again, own.log_probabilities, atol=1e-5)


def test_raising_the_scores_of_tokens_makes_them_likelier(tiny_model, talks):
    def total():
        scored = score_own_tokens(tiny_model, talks)
        return torch.stack([one.log_probabilities.sum() for one in scored]).sum()

    before = total()
    (-before).backward()
    with torch.no_grad():
        for weight in tiny_model.model.parameters():
            if weight.grad is not None:
                weight -= 1e-3 * weight.grad
    assert total().item() > before.item()


def test_a_conversation_without_tokens_is_rejected(tiny_model):
    with pytest.raises(ValueError, match="without tokens"):
        score_own_tokens(tiny_model, [Conversation([Message("user", ("Hello",))], seed=0)])
