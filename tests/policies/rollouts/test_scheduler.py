"""Episodes in slots are exact, independent of the sandbox's timing, and do not wait for tools."""

import random
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from codedance.envs.types import Tokens, Trajectory
from codedance.policies import rollout
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.interface import Conversation, Reply, Sampling
from codedance.policies.models.model_folder import ModelNotes
from codedance.policies.models.token_model import TokenModel
from codedance.policies.rollouts import runner
from codedance.policies.rollouts.scheduler import Scheduler
from codedance.sandbox import Execution, Outcome
from codedance.sandbox.types import SandboxUnavailableError, Session, SessionState
from PIL import Image

from ..players import code, task
from ..tiny import noise

LIMITS = Sampling(max_new_tokens=40, max_tokens=1500)


class TimedSession:
    """Shows an image after the time that a function returns."""

    def __init__(self, wait, seed: int) -> None:
        self._wait = wait
        self._seed = seed

    def run(self, code: str) -> Execution:
        self._wait()
        picture = noise(self._seed % 100, 28 * (1 + self._seed % 3), 56)
        return Execution(Outcome.OK, stdout="7\n<|image_pad|>", images=(picture,))

    def snapshot(self) -> SessionState:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TimedSandbox:
    tier = "none"

    def __init__(self, wait) -> None:
        self.wait = wait

    def session(self, images: Sequence[Image.Image] = (), *, seed: int = 0) -> Session:
        return TimedSession(self.wait, seed)

    def restore(self, state: SessionState, images: Sequence[Image.Image] = ()) -> Session:
        raise NotImplementedError


class Calling:
    """A real stream whose replies are replaced by code for some turns, then by an answer."""

    def __init__(self, stream, joined: list[int]) -> None:
        self.stream = stream
        self.joined = joined

    @property
    def free(self) -> int:
        return self.stream.free

    def join(self, conversations: Sequence[Conversation]) -> None:
        self.joined.append(len(conversations))
        self.stream.join(conversations)

    def advance(self) -> list[tuple[Conversation, Reply]]:
        return [(one, self.read(one, reply)) for one, reply in self.stream.advance()]

    def forget(self, conversation: Conversation) -> None:
        self.stream.forget(conversation)

    def read(self, one: Conversation, reply: Reply) -> Reply:
        calls = 1 + one.seed % 3
        text = code("look") if one.turn < calls else "<answer>5</answer>"
        return replace(reply, text=text, is_cut=False)


class CallingPolicy(VisionLanguagePolicy):
    joined: list[int]
    streams: list

    @contextmanager
    def stream(self, *, sampling: Sampling, slots: int) -> Generator[Calling]:
        self.joined = []
        with super().stream(sampling=sampling, slots=slots) as stream:
            self.streams = [stream]
            yield Calling(stream, self.joined)


@pytest.fixture
def policy(tiny_model: TokenModel) -> CallingPolicy:
    with torch.no_grad():  # turns often end by themselves
        tiny_model.model.lm_head.weight[tiny_model.chat.end_id] *= 6.0
    return CallingPolicy(tiny_model, policy_id="calling", notes=ModelNotes(""))


def play(policy: CallingPolicy, sandbox: TimedSandbox, **options) -> list[Trajectory]:
    options = {"samples": 3, "batch_size": 6, "sampling": LIMITS, "evidence": False} | options
    return rollout(policy, [task(i) for i in range(5)], sandbox=sandbox, **options)


def recorded(one: Trajectory) -> Tokens:
    assert one.tokens is not None
    return one.tokens


def shuffled_times(seed: int) -> TimedSandbox:
    draw = random.Random(seed)
    return TimedSandbox(lambda: time.sleep(draw.choice([0.0, 0.001, 0.02])))


def test_trajectories_are_bitwise_equal_for_any_timing_of_the_sandbox(policy):
    first = play(policy, shuffled_times(0))
    joined = list(policy.joined)
    again = play(policy, shuffled_times(1))
    assert [recorded(one) for one in first] == [recorded(one) for one in again]
    assert joined == policy.joined
    assert sum(len(one.turns) for one in first) > len(first)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("error", [TypeError("a bug"), SandboxUnavailableError("start it")])
def test_an_error_in_a_tools_thread_is_raised_and_loses_no_episode(policy, error, deterministic):
    def fail() -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        play(policy, TimedSandbox(fail), deterministic=deterministic)


@pytest.mark.parametrize("deterministic", [True, False])
def test_recorded_log_probabilities_equal_one_full_forward_pass(policy, deterministic):
    found = play(policy, shuffled_times(2), deterministic=deterministic)
    turns = [max(recorded(one).turn_of) for one in found]
    assert max(turns) == 3
    for one in found:
        tokens = recorded(one)
        images = [image for message in one.conversation() for image in message.images]
        full = policy.full_logprobs(tokens.ids, images[: tokens.images])
        for now, then, own in zip(full, tokens.log_probabilities, tokens.mask, strict=True):
            assert not own or now == pytest.approx(then, abs=1e-4)


def test_the_order_of_joining_and_the_number_of_slots_change_no_id(policy):
    ids = [
        [recorded(one).ids for one in play(policy, shuffled_times(3), **options)]
        for options in ({}, {"deterministic": False}, {"batch_size": 1}, {"batch_size": 64})
    ]
    assert ids[0] == ids[1] == ids[2] == ids[3]


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_trajectory_that_waits_for_its_sandbox_yields_its_slot(policy, deterministic):
    others = threading.Barrier(2, timeout=30)

    def wait_for_another() -> None:
        others.wait()  # times out, and the test fails, unless two tools run at once

    options = {"batch_size": 1, "samples": 1, "deterministic": deterministic}
    policy.model.model.eval()
    tasks = [task(index) for index in range(2)]
    with torch.no_grad():
        found = rollout(
            OneCall(policy),
            tasks,
            sandbox=TimedSandbox(wait_for_another),
            evidence=False,
            sampling=LIMITS,
            **options,
        )
    assert [len(one.turns) for one in found] == [2, 2]


class OneCall(CallingPolicy):
    """Calls its tool once in each episode."""

    def __init__(self, like: CallingPolicy) -> None:
        super().__init__(like.model, policy_id="one", notes=like.notes)

    @contextmanager
    def stream(self, *, sampling: Sampling, slots: int) -> Generator[Calling]:
        with super().stream(sampling=sampling, slots=slots) as stream:
            stream.read = lambda one, reply: replace(
                reply, text=code("look") if one.turn < 1 else "<answer>5</answer>", is_cut=False
            )
            yield stream


def test_only_the_tools_reply_is_processed_when_a_trajectory_continues(policy, monkeypatch):
    begun: list[list[int]] = []
    pad = policy.model.pad

    def noting(sequences, *, starts=None):
        begun.append(list(starts or [0] * len(sequences)))
        return pad(sequences, starts=starts)

    monkeypatch.setattr(policy.model, "pad", noting)
    found = play(policy, shuffled_times(4))
    whole = sum(start == 0 for starts in begun for start in starts)
    on = sum(start > 0 for starts in begun for start in starts)
    cut = sum(  # a turn ended by a limit has no keys and values to keep
        recorded(one).ids[i] != policy.model.chat.end_id
        for one in found
        for i, (turn, after) in enumerate(
            zip(recorded(one).turn_of, recorded(one).turn_of[1:], strict=False)
        )
        if turn >= 0 > after
    )
    assert whole <= len(found) + cut
    assert on == sum(max(recorded(one).turn_of) for one in found) - cut


def test_nothing_is_kept_of_finished_trajectories(policy):
    play(policy, shuffled_times(5))
    assert policy.streams[0].kept == {}


def test_sessions_are_closed_when_the_model_fails(policy, monkeypatch):
    open_sessions: set[int] = set()

    class Counted(TimedSandbox):
        def session(self, images=(), *, seed=0):
            session = super().session(images, seed=seed)
            open_sessions.add(id(session))
            session.close = lambda: open_sessions.discard(id(session))
            return session

    hidden, calls = policy.model.hidden, []

    def breaks(batch, **options):
        calls.append(1)
        if len(calls) > 4:
            raise MemoryError("the accelerator is full")
        return hidden(batch, **options)

    monkeypatch.setattr(policy.model, "hidden", breaks)
    with pytest.raises(MemoryError):
        play(policy, Counted(lambda: None))
    assert not open_sessions


class Elsewhere(VisionLanguagePolicy):
    """Says that its model is on another device than it is."""

    device_type = "cuda"


def test_order_is_the_default_on_a_cpu_alone(policy, monkeypatch):
    asked: list[bool] = []

    class Seen(Scheduler):
        def __init__(self, *arguments, deterministic, **options):
            asked.append(deterministic)
            super().__init__(*arguments, deterministic=deterministic, **options)

    monkeypatch.setattr(runner, "Scheduler", Seen)
    other = Elsewhere(policy.model, policy_id="elsewhere")
    for one, options in ((policy, {}), (other, {}), (other, {"deterministic": True})):
        play(one, shuffled_times(1), **options)
    assert asked == [True, False, True]
