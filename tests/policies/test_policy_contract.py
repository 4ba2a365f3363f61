"""The contract of all policies."""

from collections.abc import Callable
from pathlib import Path

import pytest
from codedance.envs.types import Message
from codedance.policies import load_policy, rollout
from codedance.policies.interface import Conversation, Policy, Sampling
from codedance.sandbox.types import Sandbox

from .players import task
from .tiny import noise

Maker = Callable[[Path], Policy]

MAKERS: dict[str, Maker] = {
    "random": lambda _: load_policy("random"),
    "oracle": lambda _: load_policy("oracle"),
    "model": lambda folder: load_policy(folder, device="cpu"),
}
SHORT = Sampling(max_new_tokens=6)


@pytest.fixture(params=MAKERS, ids=str)
def policy(request: pytest.FixtureRequest, tiny_folder: Path) -> Policy:
    return MAKERS[request.param](tiny_folder)


def conversations(seeds: list[int], interface: str = "code") -> list[Conversation]:
    return [
        Conversation([Message("user", (noise(seed), "How many?"))], seed=seed, interface=interface)
        for seed in seeds
    ]


def texts(policy: Policy, seeds: list[int]) -> list[str]:
    return [reply.text for reply in policy.reply(conversations(seeds), sampling=SHORT)]


def test_there_is_one_reply_per_conversation(policy: Policy):
    assert policy.reply([], sampling=SHORT) == []
    assert len(texts(policy, [1, 2, 3])) == 3


def test_reply_depends_on_the_seed_and_not_on_the_batch(policy: Policy):
    together = texts(policy, [1, 2, 3])
    assert texts(policy, [3, 1]) == [together[2], together[0]]


def test_messages_are_not_modified(policy: Policy):
    asked = conversations([1])
    before = list(asked[0].messages)
    policy.reply(asked, sampling=SHORT)
    assert asked[0].messages == before


def test_it_plays_an_episode_to_the_end(policy: Policy, sandbox: Sandbox):
    found = rollout(policy, [task()], samples=2, sandbox=sandbox, sampling=SHORT)
    assert all(one.is_valid and one.policy_id == policy.id for one in found)


@pytest.mark.parametrize("interface", ["code", "box", "text"])
def test_random_policy_is_well_formed_in_every_interface(sandbox: Sandbox, interface):
    found = rollout(
        load_policy("random"), [task(1)], samples=20, sandbox=sandbox, interface=interface
    )
    assert {str(one.ending) for one in found} == {"answered"}
    calls = sum(len(one.tool_turns) for one in found)
    assert (calls > 0) is (interface != "text")
    if interface == "box":
        assert not any(turn.has_failed for one in found for turn in one.tool_turns)
