"""Fixture of the tests of GRPO: a reward term by which a random model's samples differ."""

from collections.abc import Iterator

import pytest
from codedance.envs import register_reward_term
from codedance.envs.rewards.registry import unregister_reward_term

from ..players import letters as of_letters


@pytest.fixture
def letters() -> Iterator[None]:
    """Register the term for one test."""
    register_reward_term("letters")(of_letters)
    yield
    unregister_reward_term("letters")
