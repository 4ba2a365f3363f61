"""Each episode goes on by itself, over one pool of connections for the policy's life."""

import asyncio
import gc
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from typing import Any

import pytest
from codedance.policies import rollout
from codedance.policies.inference.endpoint import Endpoint
from codedance.policies.inference.openai_client import OpenAIPolicy
from codedance.policies.inference.partial_replies import PartialRepliesError
from codedance.policies.interface import AsyncPolicy, Sampling
from codedance.sandbox.types import Sandbox

from ..players import code, task
from .chat_server import Answer, Server, asks, completion, policy_of, serving

LONG = 60.0  # until a test that would wait for ever fails


def client_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "openai-client"]


def test_an_episode_does_not_wait_for_the_turn_of_another(server: Server, sandbox: Sandbox):
    quick_is_over = threading.Event()

    def answer(body: dict[str, Any]) -> Answer:
        is_slow = "Task 1" in str(body["messages"][1]["content"])
        turns = sum(message["role"] == "assistant" for message in body["messages"])
        if is_slow:
            assert quick_is_over.wait(LONG)  # its first turn comes after the other's last
        elif turns == 2:
            quick_is_over.set()
        return completion(code("print(1)") if turns < 2 else "<answer>5</answer>")

    server.answer = answer
    policy, _ = policy_of(server)
    assert isinstance(policy, AsyncPolicy)
    tasks = [task(0), task(1)]
    for number, one in enumerate(tasks):
        object.__setattr__(one, "question", f"Task {number}?")
    found = rollout(policy, tasks, sandbox=sandbox, evidence=False)
    assert [one.accuracy for one in found] == [1.0, 1.0]
    assert [len(one.turns) for one in found] == [3, 3]


def test_a_rejection_ends_the_episodes_of_a_rollout_that_have_not_begun(
    server: Server, sandbox: Sandbox
):
    server.answer = lambda _: (401, {}, "no such key")
    policy, _ = policy_of(server, concurrency=1)
    found = rollout(policy, [task(n) for n in range(5)], sandbox=sandbox, batch_size=2)
    assert [one.ending for one in found] == ["infrastructure"] * 5
    assert len(server.requests) == 1
    assert policy.usage.failures == 5


def test_all_calls_and_rollouts_share_their_connections(sandbox: Sandbox):
    with serving("HTTP/1.1") as server:
        server.answer = lambda _: completion("<answer>5</answer>")
        policy, _ = policy_of(server, concurrency=1)
        for _ in range(3):
            policy.reply([asks("a"), asks("b")], sampling=Sampling())
        rollout(policy, [task(0), task(1)], sandbox=sandbox, evidence=False)
        assert len(server.requests) == 8
        assert len(set(server.ports)) == 1
        policy.close()


def test_no_more_requests_are_under_way_than_the_endpoint_allows(server: Server):
    under_way, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2, timeout=LONG)

    def answer(_: object) -> Answer:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        both.wait()
        with lock:
            under_way -= 1
        return completion("x")

    server.answer = answer
    policy, _ = policy_of(server, concurrency=2)
    policy.reply([asks(str(number)) for number in range(6)], sampling=Sampling())
    assert most == 2


def test_a_policy_that_nobody_refers_to_closes_its_connections(server: Server):
    before = client_threads()
    policy, _ = policy_of(server)
    policy.reply([asks("q")], sampling=Sampling())
    (thread,) = [one for one in client_threads() if one not in before]
    del policy
    gc.collect()
    assert not thread.is_alive()


def test_a_closed_policy_can_be_used_again(server: Server):
    policy, _ = policy_of(server)
    policy.close()
    policy.reply([asks("q")], sampling=Sampling())
    before = client_threads()
    policy.close()
    assert len(client_threads()) == len(before) - 1
    assert policy.reply([asks("q")], sampling=Sampling())[0].text == "hello"
    assert policy.usage.requests == 2
    policy.close()


def hang(server: Server) -> tuple[threading.Event, threading.Event]:
    """Let a server hang; return the events of a request's arrival and of its late answer."""
    came, done = threading.Event(), threading.Event()

    def answer(_: object) -> Answer:
        came.set()
        done.wait(LONG)
        return completion("late")

    server.answer = answer
    return came, done


def test_a_cancelled_request_is_given_up_at_once(server: Server):
    came, done = hang(server)
    policy, _ = policy_of(server, timeout_seconds=LONG, concurrency=1)

    async def give_up() -> None:
        async with policy.connect(sampling=Sampling()) as source:
            asked = asyncio.create_task(source.reply(asks("q")))
            await asyncio.to_thread(came.wait, LONG)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            server.answer = lambda _: completion("next")
            assert (await source.reply(asks("r"))).text == "next"  # its slot is free

    asyncio.run(asyncio.wait_for(give_up(), LONG / 2))
    done.set()


def test_closing_does_not_wait_for_a_server_that_hangs(server: Server):
    came, done = hang(server)
    policy, _ = policy_of(server, timeout_seconds=LONG)

    def ask() -> None:
        with pytest.raises(CancelledError):
            policy.reply([asks("q")], sampling=Sampling())

    asking = threading.Thread(target=ask)
    asking.start()
    assert came.wait(LONG)
    policy.close()
    asking.join(LONG / 2)
    assert not asking.is_alive()
    done.set()


def test_without_openais_client_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ValueError, match=r"pip install 'codedance\[server\]'"):
        OpenAIPolicy("m", base_url="http://127.0.0.1:9/v1")


def test_a_policy_imports_neither_openais_client_before_it_is_asked_nor_torch():
    code = (
        "import sys\nfrom codedance.policies.inference.openai_client import OpenAIPolicy\n"
        "OpenAIPolicy('m', base_url='http://127.0.0.1:9/v1')\n"
        "print(sorted({'openai', 'httpx', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_address_that_the_client_rejects_is_a_refusal():
    policy = OpenAIPolicy("m", base_url="http://\u2603.x:1/v1", endpoint=Endpoint(max_retries=0))
    with pytest.raises(PartialRepliesError, match="is no address of a server"):
        policy.reply([asks("q")], sampling=Sampling())


def test_a_redirect_is_not_followed(server: Server):
    server.answer = lambda _: (307, {"Location": "http://elsewhere/v1"}, "")
    policy, _ = policy_of(server, api_key="secret-1")
    with pytest.raises(PartialRepliesError, match="moved to http://elsewhere/v1"):
        policy.reply([asks("q")], sampling=Sampling())
    assert len(server.requests) == 1


def test_no_key_sends_no_authorization(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    policy_of(server)[0].reply([asks("q")], sampling=Sampling())
    assert "Authorization" not in server.requests[0][2]
