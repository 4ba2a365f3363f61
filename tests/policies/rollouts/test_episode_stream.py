"""Episodes that are requested one by one: in order, within bounds, and ended from outside."""

import asyncio
import threading
from concurrent.futures import CancelledError

import pytest
from codedance.envs.types import Ending
from codedance.policies import rollout
from codedance.policies.interface import Conversation, PolicyUnavailableError, Sampling
from codedance.policies.rollouts.episode_stream import EpisodeStream, StreamSetting
from codedance.sandbox.types import Sandbox, SandboxUnavailableError

from ..players import CountingSandbox, code, task
from .test_async_play import OneByOne, call_once


def stream_of(policy: OneByOne, sandbox: Sandbox, lost: list, size: int = 3) -> EpisodeStream:
    setting = StreamSetting(sandbox, Sampling(), batch_size=size)
    return EpisodeStream(policy, setting, on_lost=lost.append)


def test_episodes_are_those_of_a_rollout(sandbox: Sandbox) -> None:
    policy, lost = OneByOne(call_once), []
    with stream_of(policy, sandbox, lost) as stream:
        asked = [stream.request(task(n), 7 + n, policy_id=f"step-{n}") for n in range(8)]
        found = [one.result(60.0) for one in asked]
    assert [one.task_id for one in found] == [f"toy/{n}" for n in range(8)]
    assert [one.policy_id for one in found] == [f"step-{n}" for n in range(8)]
    assert [one.seed for one in found] == [7 + n for n in range(8)]
    (same,) = rollout(policy, [task(0)], sandbox=sandbox, evidence=False)
    assert [turn.text for turn in found[0].turns] == [turn.text for turn in same.turns]
    assert all(one.accuracy == 1.0 for one in found)
    assert policy.most <= 3
    assert not lost


def test_episodes_begin_in_the_order_of_their_requests(sandbox: Sandbox) -> None:
    begun: list[str] = []

    async def answer(talk: Conversation) -> str:
        begun.append(str(talk.seed))
        return "<answer>5</answer>"

    with stream_of(OneByOne(answer), sandbox, [], size=1) as stream:
        asked = [stream.request(task(n), n, policy_id="p") for n in range(6)]
        assert all(one.result(60.0).accuracy == 1.0 for one in asked)
    assert begun == [str(n) for n in range(6)]


def test_lost_episode_is_one_of_infrastructure_and_no_other_is(sandbox: Sandbox) -> None:
    async def fail_once(talk: Conversation) -> str:
        if talk.seed == 1:
            raise PolicyUnavailableError("away")
        return "<answer>5</answer>"

    lost: list[Exception | None] = []
    with stream_of(OneByOne(fail_once), sandbox, lost) as stream:
        asked = [stream.request(task(n), n, policy_id="p") for n in range(3)]
        found = [one.result(60.0) for one in asked]
    assert [one.ending is Ending.INFRASTRUCTURE for one in found] == [False, True, False]
    assert found[1].accuracy is None
    assert [str(one) for one in lost] == ["away"]


def test_error_reaches_who_requested_the_episode(sandbox: Sandbox) -> None:
    async def answer(talk: Conversation) -> str:
        if talk.seed == 0:
            raise KeyError("a fault of ours")
        return "<answer>5</answer>"

    with stream_of(OneByOne(answer), sandbox, []) as stream:
        first, second = (stream.request(task(n), n, policy_id="p") for n in range(2))
        assert second.result(60.0).accuracy == 1.0
        with pytest.raises(KeyError, match="a fault of ours"):
            first.result(60.0)


def test_sandbox_that_is_not_there_is_an_error() -> None:
    class Missing:
        tier = "none"

        def session(self, *_: object, **__: object):
            raise SandboxUnavailableError("install it")

    with (
        stream_of(OneByOne(call_once), Missing(), []) as stream,  # type: ignore[arg-type]
        pytest.raises(SandboxUnavailableError, match="install it"),
    ):
        stream.request(task(0), 0, policy_id="p").result(60.0)


def test_leaving_ends_what_is_under_way_and_closes_every_session(sandbox: Sandbox) -> None:
    """One episode waits for its reply, one for its tool, and others for their turn."""
    in_tool, end_tool = threading.Event(), threading.Event()
    waits = threading.Event()
    closed: list[int] = []

    async def write(talk: Conversation) -> str:
        if talk.seed == 0:
            return code("print(1)")
        waits.set()
        await asyncio.sleep(3600.0)
        return ""

    class Held(CountingSandbox):
        def session(self, *arguments, **options):
            found = super().session(*arguments, **options)
            run, close = found.run, found.close

            class Session:
                def run(self, block: str):
                    in_tool.set()
                    assert end_tool.wait(60.0)
                    return run(block)

                def close(self) -> None:
                    closed.append(1)
                    close()

            return Session()

    held = Held(sandbox)
    with stream_of(OneByOne(write), held, [], size=2) as stream:  # type: ignore[arg-type]
        asked = [stream.request(task(n), n, policy_id="p") for n in range(9)]
        assert in_tool.wait(60.0)
        assert waits.wait(60.0)
        threading.Timer(0.05, end_tool.set).start()
    for one in asked:
        with pytest.raises(CancelledError):
            one.result(60.0)
    assert held.sessions == len(closed) == 1
    assert not any(one.name.startswith("stream") for one in threading.enumerate())
