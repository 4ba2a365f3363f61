"""Episodes of a policy whose replies come one by one: none waits for another, no error is lost."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from codedance.envs.types import Ending, Trajectory
from codedance.policies import rollout
from codedance.policies.inference.partial_replies import PartialRepliesError, ask_each
from codedance.policies.interface import (
    AsyncPolicy,
    Conversation,
    PolicyUnavailableError,
    Reply,
    Sampling,
)
from codedance.sandbox.types import Sandbox, SandboxUnavailableError

from ..players import code, task
from .test_scheduler import TimedSandbox

ANSWER = "<answer>5</answer>"


class OneByOne:
    """Replies with a coroutine of the conversation."""

    id = "one-by-one"
    system_prompt = ""

    def __init__(self, write) -> None:
        self.write = write
        self.at_once = 0
        self.most = 0

    @asynccontextmanager
    async def connect(self, *, sampling: Sampling) -> AsyncGenerator["OneByOne"]:
        yield self

    async def reply(self, conversation: Conversation, **_: object) -> Reply:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(0)
            return Reply(await self.write(conversation))
        finally:
            self.at_once -= 1


async def call_once(talk: Conversation) -> str:
    return code("print(1)") if talk.turn == 0 else ANSWER


def play(policy: OneByOne, sandbox, count: int = 6, **options) -> list[Trajectory]:
    options = {"evidence": False, "batch_size": 3} | options
    return rollout(policy, [task(i) for i in range(count)], sandbox=sandbox, **options)


def test_policy_is_recognised() -> None:
    assert isinstance(OneByOne(call_once), AsyncPolicy)


def test_episodes_are_played_and_reported_in_order(sandbox: Sandbox) -> None:
    seen: list[str] = []
    policy = OneByOne(call_once)
    found = play(policy, sandbox, on_trajectory=lambda one: seen.append(one.task_id))
    assert [one.task_id for one in found] == seen == [f"toy/{i}" for i in range(6)]
    assert all(one.accuracy == 1.0 and len(one.turns) == 2 for one in found)
    assert all((turn.generation_seconds or 0.0) > 0.0 for one in found for turn in one.turns)
    assert policy.most <= 3


def test_a_slow_tool_holds_up_no_other_episode() -> None:
    """The first tool ends when the other episodes are over, those in the queue included."""
    over = threading.Event()
    calls: list[int] = []
    ended: list[int] = []

    def wait() -> None:
        calls.append(len(calls))
        if calls[-1] == 0:
            assert over.wait(60)

    async def write(talk: Conversation) -> str:
        if talk.turn == 0:
            return code("look")
        ended.append(talk.seed)
        if len(ended) == 5:
            over.set()
        return ANSWER

    found = play(OneByOne(write), TimedSandbox(wait))
    assert [one.ending for one in found] == [Ending.ANSWERED] * 6


def test_unavailable_model_ends_one_episode_as_infrastructure(sandbox: Sandbox) -> None:
    async def write(talk: Conversation) -> str:
        if talk.turn == 1 and talk.seed % 2:
            raise PolicyUnavailableError("away")
        return await call_once(talk)

    found = play(OneByOne(write), sandbox, count=8)
    assert {one.is_valid for one in found} == {bool(1 - one.seed % 2) for one in found}
    for one in found:
        assert one.is_valid == (one.seed % 2 == 0)
        assert (one.accuracy is None) == (not one.is_valid)


@pytest.mark.parametrize("error", [TypeError("a bug"), SandboxUnavailableError("start it")])
def test_an_error_in_a_tools_thread_is_raised_and_ends_the_rollout(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        play(OneByOne(call_once), TimedSandbox(fail), count=50)


def test_an_error_of_the_policy_is_raised(sandbox: Sandbox) -> None:
    async def write(talk: Conversation) -> str:
        raise KeyError("a bug of the policy")

    with pytest.raises(KeyError, match="a bug of the policy"):
        play(OneByOne(write), sandbox)


def test_an_interruption_ends_waiting_episodes(sandbox: Sandbox) -> None:
    """Ctrl-C arrives in the thread that opens the episodes, while replies are awaited forever."""

    async def write(talk: Conversation) -> str:
        if talk.turn == 0 and talk.messages[0].images[0] == task(0).images[0]:
            return ANSWER
        await asyncio.Event().wait()
        return ""

    def interrupt(_: Trajectory) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(OneByOne(write), sandbox, batch_size=1, count=9, on_trajectory=interrupt)


def test_rollout_within_a_running_event_loop(sandbox: Sandbox) -> None:
    """As in a notebook."""

    async def cell() -> Sequence[Trajectory]:
        return play(OneByOne(call_once), sandbox)

    assert len(asyncio.run(cell())) == 6


@pytest.mark.parametrize("fails", [lambda seed: False, lambda seed: seed == 2])
def test_batch_of_replies_keeps_order_and_names_what_failed(fails: Callable[[int], bool]) -> None:
    async def write(talk: Conversation) -> str:
        for _ in range(5 - talk.seed):
            await asyncio.sleep(0)
        if fails(talk.seed):
            raise PolicyUnavailableError("away")
        return str(talk.seed)

    talks = [Conversation([], seed=seed) for seed in range(5)]
    policy = OneByOne(write)
    if not fails(2):
        assert [one.text for one in ask_each(policy, talks, Sampling())] == list("01234")
        return
    with pytest.raises(PartialRepliesError, match="1 of 5 conversations got no reply: away") as it:
        ask_each(policy, talks, Sampling())
    assert [one and one.text for one in it.value.replies] == ["0", "1", None, "3", "4"]
