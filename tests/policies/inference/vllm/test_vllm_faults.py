"""Each fault of a server ends as it should: asked again, lost to infrastructure, or refused."""

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from codedance.envs.types import Ending
from codedance.policies import rollout
from codedance.policies.inference.partial_replies import PartialRepliesError
from codedance.policies.inference.vllm.servers import Servers
from codedance.policies.interface import (
    Conversation,
    PolicyRefusedError,
    PolicyUnavailableError,
    Reply,
)
from codedance.policies.rollouts.losses import EpisodesLostError
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.groups import GroupSampler, score
from codedance.sandbox.types import Sandbox
from sampling import sampled

from ...players import task, trajectory
from .fake_vllm import FakeVllm
from .talks import TURN, asks, goes_on, policy_of

END, IMAGE = 256, 262  # <|im_end|> and <|image_pad|> of the tiny tokenizer
Answer = dict[str, Any]
Change = Callable[[Answer], str | None]


def lost(fake: FakeVllm, talk: Conversation | None = None, **settings: Any) -> str:
    """Return why a reply was lost to infrastructure; nothing of it is recorded."""
    talk = talk or asks()
    with pytest.raises(PartialRepliesError) as caught:
        policy_of(fake, **settings).reply([talk], sampling=TURN)
    assert talk.tokens is None
    (error,) = caught.value.errors
    assert isinstance(error, PolicyUnavailableError)
    return str(error)


def choice(answer: Answer) -> Answer:
    return answer["choices"][0]


def entry(answer: Answer) -> Answer:
    return choice(answer)["logprobs"]["content"][3]


def versions(answer: Answer, *spans: tuple[str | None, int, int]) -> None:
    named = [{"version": name, "start": start, "end": end} for name, start, end in spans]
    choice(answer).update(weight_versions=named)


FINAL: dict[str, tuple[Change, str]] = {
    "another prompt": (
        lambda a: a["prompt_token_ids"].__setitem__(7, 0),
        "another prompt.* from id 7 on",
    ),
    "images expanded twice": (
        lambda a: a.update(prompt_token_ids=a["prompt_token_ids"] * 2),
        "another prompt",
    ),
    "no ids of the prompt": (lambda a: a.pop("prompt_token_ids") and None, "no prompt_token_ids"),
    "a control id": (lambda a: choice(a)["token_ids"].__setitem__(2, IMAGE), "control id"),
    "beyond the end": (
        lambda a: choice(a)["token_ids"].__setitem__(4, END),
        "beyond the end of the turn",
    ),
    "an end of its own": (
        lambda a: choice(a).update(finish_reason="stop", stop_reason=5),
        "does not end a turn",
    ),
    "a stop text of its own": (
        lambda a: choice(a).update(finish_reason="stop", stop_reason="</s>"),
        "does not end a turn",
    ),
}
REPEATED: dict[str, tuple[Change, str]] = {
    "reply dropped": (lambda a: a.update(choices=[]), "expected one reply"),
    "two replies": (lambda a: a.update(choices=a["choices"] * 2), "expected one reply"),
    "no object": (lambda _: "[1, 2]", "the answer is not an object"),
    "no JSON": (lambda _: "<html>", "no JSON"),
    "no ids": (lambda a: choice(a).update(token_ids=[]), "no token ids"),
    "null ids": (lambda a: choice(a).update(token_ids=None), "no token ids"),
    "an id of no token": (
        lambda a: choice(a)["token_ids"].__setitem__(0, 5000),
        "outside of the vocabulary",
    ),
    "more than asked for": (
        lambda a: choice(a).update(token_ids=choice(a)["token_ids"] * 2),
        "at most 12 asked for",
    ),
    "cut too early": (
        lambda a: choice(a).update(token_ids=choice(a)["token_ids"][:2]),
        "cut after 2 tokens, not 12",
    ),
    "unknown reason": (lambda a: choice(a).update(finish_reason="tired"), "unknown reason"),
    "no log-probabilities": (lambda a: choice(a).update(logprobs=None), "12 log-probabilities"),
    "one missing": (
        lambda a: choice(a)["logprobs"]["content"].pop() and None,
        "12 log-probabilities",
    ),
    "that of another id": (lambda a: entry(a).update(token_id=1), "is that of"),
    "minus infinity": (lambda a: entry(a).update(logprob=-9999.0), "no log-probability"),
    "not a number": (lambda a: entry(a).update(logprob=float("nan")), "no log-probability"),
    "null": (lambda a: entry(a).update(logprob=None), "no log-probability"),
    "beyond any float": (lambda a: entry(a).update(logprob=-(10**400)), "no JSON|no log-prob"),
    "nested too deeply": (lambda _: "[" * 100_000, "no JSON"),
    "above 0": (lambda a: entry(a).update(logprob=0.5), "no log-probability"),
    "versions with a gap": (lambda a: versions(a, ("1", 0, 3), ("2", 4, 12)), "with gaps"),
    "a version of no name": (lambda a: versions(a, (None, 0, 12)), "with gaps"),
    "versions of fewer": (lambda a: versions(a, ("1", 0, 3)), "for 12 tokens"),
}


@pytest.mark.parametrize("name", FINAL)
def test_answer_that_would_be_the_same_again_is_lost_at_once(fake: FakeVllm, name: str) -> None:
    change, words = FINAL[name]
    fake.faults.change = lambda _, answer: change(answer)
    assert re.search(words, lost(fake))
    assert len(fake.bodies) == 1


@pytest.mark.parametrize("name", sampled(REPEATED))
def test_incomplete_answer_is_asked_for_again_within_bounds(fake: FakeVllm, name: str) -> None:
    change, words = REPEATED[name]
    fake.faults.change = lambda _, answer: change(answer)
    assert re.search(words, lost(fake, max_retries=2))
    assert len(fake.bodies) == 3
    fake.faults.change = lambda number, answer: change(answer) if number == 3 else None
    (reply,) = policy_of(fake).reply([asks()], sampling=TURN)
    assert reply.new_tokens
    assert len(fake.bodies) == 5


def test_weights_of_another_version_are_lost_at_once(fake: FakeVllm) -> None:
    assert "'default', not 'step-3'" in lost(fake, weight_version="step-3")
    fake.faults.change = lambda _, a: versions(a, ("step-3", 0, 5), ("step-2", 5, 12))
    assert "'step-2', not 'step-3'" in lost(fake, weight_version="step-3")
    fake.faults.change = lambda _, a: choice(a).pop("weight_versions") and None
    assert "names no version" in lost(fake, weight_version="step-3", max_retries=0)
    fake.faults.change = lambda *_: None
    fake.engine.version = "step-3"
    policy_of(fake, weight_version="step-3").reply([asks()], sampling=TURN)


@pytest.mark.parametrize("status", [500, 502, 429])
def test_failing_server_is_asked_again_within_bounds(fake: FakeVllm, status: int) -> None:
    fake.faults.status = lambda *_: (status, "EngineDeadError")
    assert f"HTTP {status}: EngineDeadError" in lost(fake, max_retries=1)
    assert len(fake.bodies) == 2
    fake.faults.status = lambda number, _: (status, "") if number == 2 else None
    policy = policy_of(fake)
    policy.reply([asks()], sampling=TURN)
    assert policy.usage.figures()["retries"] == 1.0


def test_rejected_request_is_lost_at_once_and_the_others_are_not(fake: FakeVllm) -> None:
    fake.faults.status = lambda number, _: (400, "at most 8 images") if number == 0 else None
    policy = policy_of(fake)
    with pytest.raises(PartialRepliesError) as caught:
        policy.reply([asks(seed) for seed in range(4)], sampling=TURN)
    assert sum(error is not None for error in caught.value.errors) == 1
    assert "HTTP 400: at most 8 images" in str(caught.value)
    assert len(fake.bodies) == 4


@pytest.mark.parametrize("status", [401, 403, 404])
def test_server_without_the_interface_is_a_refusal(fake: FakeVllm, status: int) -> None:
    fake.faults.status = lambda *_: (status, "no")
    with pytest.raises(PartialRepliesError) as caught:
        policy_of(fake).reply([asks()], sampling=TURN)
    assert isinstance(caught.value.errors[0], PolicyRefusedError)
    assert "--enable-scale-out" in str(caught.value)
    assert len(fake.bodies) == 1


def test_key_is_sent_and_not_shown(fake: FakeVllm) -> None:
    fake.faults.status = lambda *_: (500, "wrong key secret-key")
    assert "secret-key" not in lost(fake, api_key="secret-key", max_retries=0)
    assert fake.keys == ["Bearer secret-key"]


def test_paused_server_is_waited_for_without_counting_as_a_failure(fake: FakeVllm) -> None:
    fake.faults.status = lambda number, _: (503, "paused") if number < 5 else None
    policy_of(fake, max_retries=0).reply([asks()], sampling=TURN)
    assert len(fake.bodies) == 6


def test_aborted_reply_is_asked_for_again(fake: FakeVllm) -> None:
    def abort(number: int, answer: Answer) -> None:
        if number < 3:
            choice(answer).update(finish_reason="abort", token_ids=[])

    fake.faults.change = abort
    policy_of(fake, max_retries=0).reply([asks()], sampling=TURN)
    assert len(fake.bodies) == 4


@pytest.mark.parametrize("status", [503, 500])
def test_wait_for_a_server_is_bounded(fake: FakeVllm, status: int) -> None:
    fake.faults.status = lambda *_: (status, "not now")
    assert f"HTTP {status}" in lost(fake, patience_seconds=0.4, max_retries=1_000_000)


@pytest.mark.parametrize("how", ["refuses", "hangs up", "pauses"])
def test_wait_for_several_servers_is_bounded(
    fake: FakeVllm, other: FakeVllm, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding out takes longer than the rest of the other one: one of them is always ready."""
    monkeypatch.setattr("codedance.policies.inference.vllm.servers._LONGEST_REST_SECONDS", 0.01)
    monkeypatch.setattr("codedance.policies.inference.vllm.servers._FIRST_REST_SECONDS", 0.01)
    slowly = threading.Event()

    def answer(*_: object) -> tuple[int, str] | None:
        slowly.wait(0.1)
        return (503, "paused") if how == "pauses" else None

    def abort(_: int, a: Answer) -> None:
        choice(a).update(finish_reason="abort", token_ids=[])

    for server in (fake, other):
        server.faults.status = answer
        if how == "refuses":
            server.kill()
        if how == "hangs up":
            server.faults.change = abort
    policy = policy_of(fake, other, patience_seconds=0.5, max_retries=50)
    policy.servers.has_answered = True
    with pytest.raises(PartialRepliesError):
        policy.reply([asks()], sampling=TURN)


BAD: dict[str, Callable[[FakeVllm], None]] = {
    "no interface": lambda one: setattr(one.faults, "status", lambda *_: (404, "Not Found")),
    "rejects": lambda one: setattr(one.faults, "status", lambda *_: (400, "no")),
    "other images": lambda one: setattr(
        one.faults, "change", lambda _, a: a["prompt_token_ids"].pop() and None
    ),
    "no replies": lambda one: setattr(one.faults, "change", lambda _, a: a.update(choices=[])),
    "dead": lambda one: one.kill(),
}


@pytest.mark.parametrize("how", BAD)
def test_a_bad_server_beside_a_good_one_loses_nothing(
    fake: FakeVllm, other: FakeVllm, how: str
) -> None:
    BAD[how](fake)
    policy = policy_of(fake, other)
    for start in range(0, 12, 4):
        talks = [asks(seed) for seed in range(start, start + 4)]
        policy.reply(talks, sampling=TURN)


def test_reason_of_a_loss_is_that_of_the_last_answer(fake: FakeVllm, other: FakeVllm) -> None:
    for one in (fake, other):
        one.faults.change = lambda _, a: a.update(choices=[])
    with pytest.raises(PartialRepliesError, match="expected one reply"):
        policy_of(fake, other, max_retries=3).reply([asks()], sampling=TURN)
    assert (len(fake.bodies), len(other.bodies)) == (2, 2)


def test_every_server_has_to_refuse_for_a_refusal(fake: FakeVllm, other: FakeVllm) -> None:
    fake.faults.status = other.faults.status = lambda *_: (404, "Not Found")
    with pytest.raises(PartialRepliesError) as caught:
        policy_of(fake, other).reply([asks()], sampling=TURN)
    assert isinstance(caught.value.errors[0], PolicyRefusedError)
    assert (len(fake.bodies), len(other.bodies)) == (1, 1)


def test_episodes_in_sequence_are_spread_over_the_servers(fake: FakeVllm, other: FakeVllm) -> None:
    policy = policy_of(fake, other)
    for seed in range(6):
        policy.reply([asks(seed)], sampling=TURN)
    assert (len(fake.bodies), len(other.bodies)) == (3, 3)


def test_server_that_never_answered_is_given_up_early(fake: FakeVllm) -> None:
    fake.kill()
    assert "unreachable" in lost(fake, max_retries=2, patience_seconds=1e6)


def test_server_that_hangs_is_left_after_the_timeout(fake: FakeVllm) -> None:
    done = threading.Event()
    fake.faults.before = lambda *_: done.wait(60) and None
    said = lost(fake, timeout_seconds=0.2, max_retries=1)
    done.set()
    assert "gave no answer within 0.2 s" in said
    assert len(fake.bodies) == 2


def test_server_that_lost_its_pictures_is_left_for_another(fake: FakeVllm, other: FakeVllm) -> None:
    """The engine dies of each picture that it believes to know; the episode goes on elsewhere."""
    policy = policy_of(fake, other)
    talks = [asks(0), asks(1)]
    replies = policy.reply(talks, sampling=TURN)
    known = {part["url"] for body in fake.bodies for part in body["content_parts"]}

    def miss(_: int, body: Answer) -> tuple[int, str] | None:
        is_known = any(part["url"] in known for part in body["content_parts"])
        return (500, "EngineCore encountered an issue") if is_known else None

    fake.faults.status = miss
    for talk, reply in zip(talks, replies, strict=True):
        goes_on(talk, reply.text, asks(9).messages[0].images[0])
    again = policy.reply(talks, sampling=TURN)
    assert all(one.new_tokens for one in again)
    assert (len(fake.bodies), len(other.bodies)) == (2, 3)


def test_least_busy_server_first_and_an_episode_stays(fake: FakeVllm, other: FakeVllm) -> None:
    together = threading.Barrier(6)
    fake.faults.before = other.faults.before = lambda *_: together.wait(60) and None
    policy = policy_of(fake, other)
    talks = [asks(seed) for seed in range(6)]
    replies = policy.reply(talks, sampling=TURN)
    assert len(fake.bodies) == len(other.bodies) == 3
    homes = [
        {body["content_parts"][0]["url"] for body in server.bodies} for server in (fake, other)
    ]
    for talk, reply in zip(talks, replies, strict=True):
        goes_on(talk, reply.text, asks(9).messages[0].images[0])
    policy.reply(talks, sampling=TURN)
    for server, own in zip((fake, other), homes, strict=True):
        assert {body["content_parts"][0]["url"] for body in server.bodies[3:]} == own


def test_server_that_dies_within_a_batch_loses_its_episodes_in_bounded_time(
    fake: FakeVllm, sandbox: Sandbox
) -> None:
    """The dead engine is no success and no wrong answer; the other episodes are unharmed."""

    def die(number: int, _: Answer) -> None:
        if number == 5:
            fake.kill()

    fake.faults.before = die
    policy = policy_of(fake, patience_seconds=0.2, max_retries=1)
    tasks = [task(index) for index in range(12)]
    episodes = rollout(policy, tasks, sandbox=sandbox, sampling=TURN, batch_size=2)
    endings = [one.ending for one in episodes]
    assert len(episodes) == 12
    assert Ending.INFRASTRUCTURE in endings
    for one in episodes:
        is_lost = one.ending is Ending.INFRASTRUCTURE
        assert one.is_valid != is_lost
        assert (one.accuracy is None) == is_lost
    fake.faults.before = lambda *_: None
    fake.restart()
    again = rollout(policy, tasks, sandbox=sandbox, sampling=TURN, batch_size=2)
    assert all(one.is_valid for one in again)


def test_nothing_is_lost_where_the_server_is_back_in_time(fake: FakeVllm, sandbox: Sandbox) -> None:
    def die(number: int, _: Answer) -> None:
        if number == 4:
            fake.kill()
            fake.restart()

    fake.faults.before = die
    policy = policy_of(fake)
    tasks = [task(index) for index in range(8)]
    episodes = rollout(policy, tasks, sandbox=sandbox, sampling=TURN, batch_size=2)
    assert all(one.is_valid for one in episodes)
    assert policy.usage.figures()["retries"] > 0
    assert len({body["sampling_params"]["seed"] for body in fake.bodies}) == 8


def test_training_step_fails_without_a_server_and_the_next_goes_on(
    fake: FakeVllm, sandbox: Sandbox
) -> None:
    config = GRPOConfig(tasks_per_step=2, num_generations=2, max_new_tokens=12, max_tokens=400)
    tasks = [task(index) for index in range(6)]
    sampler = GroupSampler(tasks, config, sandbox=sandbox)
    policy = policy_of(fake, patience_seconds=0.2, max_retries=1)
    sampler.sample(policy, 0)
    fake.kill()
    with pytest.raises(EpisodesLostError, match=r"all 8 episodes were lost: .*unreachable"):
        sampler.sample(policy, 1)
    fake.restart()
    kept, _ = sampler.sample(policy, 2)
    assert not any(group.is_lost for group in kept)


def test_lost_sibling_leaves_the_advantages_of_the_others(sandbox: Sandbox) -> None:
    config = GRPOConfig()
    whole = [trajectory(accuracy=accuracy) for accuracy in (1.0, 0.0, 1.0)]
    alone = score(whole, config, sandbox=sandbox)
    beside = score([*whole, trajectory(accuracy=None)], config, sandbox=sandbox)
    assert beside.advantages == (*alone.advantages, 0.0)
    assert any(alone.advantages)


def test_servers_rest_longer_after_each_failure_in_a_row() -> None:
    now = 100.0
    servers = Servers(["http://a:1", "http://b:2/v1/"], clock=lambda: now)
    first, second = servers.all
    assert [first.url, second.url] == ["http://a:1", "http://b:2"]
    rests: list[float] = []
    for _ in range(9):
        servers.failed(first, "one")
        servers.failed(first, "one")  # at the same time: the same failure
        rests.append(first.rests_until - now)
        now = first.rests_until
    assert rests == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    servers.failed(first, "one")
    assert servers.seconds_left == 0.0  # the second one
    assert servers.enter(7) is second
    servers.failed(second, "two")
    assert servers.enter(7) is None
    assert (servers.seconds_left, servers.reason) == (0.25, "two")
    servers.succeeded(first)
    assert servers.enter(7) is first


def test_servers_that_missed_an_update_are_looked_up_one_request_at_a_time() -> None:
    servers = Servers(["http://a:1", "http://b:2/v1/"])
    for one in servers.all:
        one.is_looked_up = True
    servers.look_up_again(without=["http://b:2/v1"])
    first, second = servers.all
    assert (first.is_looked_up, second.is_looked_up) == (False, True)
    assert servers.enter(1) is first
    assert servers.enter(2, without=[second]) is None  # until the first request has looked it up
    first.is_looked_up = True
    assert servers.enter(2, without=[second]) is first
    servers.look_up_again()
    assert not any(one.is_looked_up for one in servers.all)


def test_concurrent_failures_of_a_batch_are_replies_in_order(fake: FakeVllm) -> None:
    fake.faults.status = lambda _, body: (
        (400, "odd") if body["sampling_params"]["seed"] % 2 else None
    )
    talks = [asks(seed) for seed in range(8)]
    with pytest.raises(PartialRepliesError) as caught:
        policy_of(fake).reply(talks, sampling=TURN)
    for talk, reply, error in zip(talks, caught.value.replies, caught.value.errors, strict=True):
        assert isinstance(reply, Reply) == (error is None) == (talk.tokens is not None)
    assert 0 < sum(error is None for error in caught.value.errors) < 8
