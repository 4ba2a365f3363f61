"""Fixtures of the tests of GRPO: a term by which samples differ, trajectories, a server."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from codedance.envs import register_reward_term
from codedance.envs.rewards.registry import unregister_reward_term
from codedance.envs.types import Tokens, Trajectory
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.models.token_model import TokenModel

from ..inference.vllm.fake_vllm import FakeVllm
from ..players import letters as of_letters
from ..players import trajectory


@pytest.fixture
def fake(tiny_model: TokenModel) -> Iterator[FakeVllm]:
    with FakeVllm(tiny_model) as server:
        yield server


@pytest.fixture
def letters() -> Iterator[None]:
    """Register the term for one test."""
    register_reward_term("letters")(of_letters)
    yield
    unregister_reward_term("letters")


@pytest.fixture
def sampled(tiny_model: TokenModel) -> list[Trajectory]:
    """Three trajectories with exact tokens, of which 2, 3 and 4 are the policy's, in one turn."""
    policy = VisionLanguagePolicy(tiny_model, policy_id="tiny")
    found: list[Trajectory] = []
    for own in (2, 3, 4):
        one = trajectory()
        prompt = tiny_model.chat.open_prompt(one.opening)
        ids = (*prompt, *tiny_model.chat.encode_text("abcd"[:own]))
        scores = policy.full_logprobs(ids, one.opening[0].images)
        turn_of = (-1,) * len(prompt) + (0,) * own
        logs = tuple(s if t >= 0 else 0.0 for s, t in zip(scores, turn_of, strict=True))
        found.append(replace(one, tokens=Tokens(ids, logs, turn_of, images=1)))
    return found
