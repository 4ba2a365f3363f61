import functools
import threading

import gymnasium as gym
import numpy as np
import pytest
from codedance.envs import register_reward_term
from codedance.envs.rewards.registry import unregister_reward_term
from codedance.envs.vector import VisualCodeVectorEnv
from codedance.envs.visual_code import VisualCodeEnv
from codedance.sandbox import SandboxError
from codedance.sandbox import shared as shared_sandbox
from codedance.sandbox.types import SandboxUnavailableError
from gymnasium.error import ResetNeeded
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from .toys import InProcessSandbox, ToySuite

ID = "codedance.envs:codedance/VisualCode-v0"
LOOK = "```python\nprint(input_image.getpixel((3, 3)))\n```"
ACTIONS = [[LOOK, "<answer>5</answer>", "hm"], ["<answer>1</answer>"] * 3, [LOOK] * 3]


def vector(count=3, **settings):
    return VisualCodeVectorEnv(
        count, **{"suite": ToySuite(), "sandbox": InProcessSandbox()} | settings
    )


def toy():
    return VisualCodeEnv(ToySuite(), sandbox=InProcessSandbox())


def record(envs):
    seen = [repr(envs.reset(seed=3))]
    for actions in ACTIONS:
        observation, rewards, terminations, truncations, infos = envs.step(actions)
        assert observation in envs.observation_space
        seen.append(repr((observation, rewards, terminations, truncations, infos)))
    envs.close()
    return seen


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_its_results_equal_those_of_gymnasiums_vector_environment(mode):
    ours = record(vector(autoreset_mode=mode))
    assert ours == record(SyncVectorEnv([toy] * 3, autoreset_mode=mode))


def test_it_works_in_processes():
    theirs = AsyncVectorEnv([toy] * 3, shared_memory=False)
    assert record(theirs) == record(vector())


@pytest.mark.slow
def test_make_vec_returns_ours_and_gymnasiums_on_request():
    settings = {"suite": "nano", "split": "test"}
    ours = gym.make_vec(ID, num_envs=4, **settings)
    assert isinstance(ours, VisualCodeVectorEnv)
    sync = gym.make_vec(ID, num_envs=4, vectorization_mode="sync", **settings)
    forked = gym.make_vec(
        ID,
        num_envs=4,
        vectorization_mode="async",
        vector_kwargs={"shared_memory": False},
        **settings,
    )
    seen = []
    for envs in (ours, sync, forked):
        observation, infos = envs.reset(seed=0)
        stepped = envs.step([LOOK] * 4)
        seen.append(repr((observation, infos["task_id"], stepped[0], stepped[1])))
        envs.close()
    assert seen[0] == seen[1] == seen[2]


def test_sixty_four_members_step_concurrently_over_one_sandbox():
    envs = gym.make_vec(ID, num_envs=64)
    envs.reset(seed=0)
    observation, _, _, truncations, infos = envs.step([LOOK] * 64)
    assert not truncations.any()
    assert infos["is_valid"].all()
    assert all(text.startswith("<tool_response>\n(") for text in observation["text"])
    envs.close()


class _Broken:
    """A suite with an unreadable first task."""

    name, split, families = "broken", "train", ("counting",)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise OSError("the disk is gone")

    def task(self, task_id):
        return ToySuite()[0]


def test_a_member_with_an_unreadable_task_raises_and_starts_later():
    envs = vector(2)
    readable, envs.envs[1].suite = envs.envs[1].suite, _Broken()
    with pytest.raises(OSError, match="environment 1: the disk is gone"):
        envs.reset(seed=0)
    with pytest.raises(ResetNeeded):
        envs.step([LOOK] * 2)
    envs.envs[1].suite = readable
    _, infos = envs.reset(seed=0)
    assert infos["is_valid"].all()
    envs.close()


class _TwoPartError(ValueError):
    def __init__(self, what, why):
        super().__init__(what, why)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a bug"), KeyError("key"), OSError(5, "gone"), _TwoPartError("a", "b")],
    ids=repr,
)
def test_an_error_keeps_its_type_and_names_its_member(error):
    envs = vector(3)
    envs.reset(seed=0)
    envs.envs[2].step = functools.partial(_raise, error)
    with pytest.raises(type(error), match="environment 2") as caught:  # words and notes
        envs.step([LOOK, "<answer>5</answer>", LOOK])
    assert caught.value is error
    envs.close()


def test_the_message_of_an_error_begins_with_its_member():
    envs = vector(2)
    envs.reset(seed=0)
    envs.envs[1].step = functools.partial(_raise, ZeroDivisionError("division by zero"))
    with pytest.raises(ZeroDivisionError) as caught:
        envs.step([LOOK, LOOK])
    assert str(caught.value) == "environment 1: division by zero"
    envs.close()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_after_an_error_the_others_have_stepped_and_the_member_restarts(mode):
    envs = vector(3, autoreset_mode=mode)
    envs.reset(seed=0)
    step = envs.envs[0].step
    envs.envs[0].step = functools.partial(_raise, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="environment 0"):
        envs.step([LOOK] * 3)
    envs.envs[0].step = step
    _, rewards, terminations, truncations, infos = envs.step(["unread", LOOK, LOOK])
    assert infos["turn"].tolist() == [0, 2, 2]
    assert rewards.tolist() == [0.0] * 3
    assert not (terminations | truncations).any()
    assert infos["is_valid"].all()
    envs.close()


def test_without_autoreset_a_member_that_raised_waits_for_its_reset():
    envs = vector(2, autoreset_mode="Disabled")
    envs.reset(seed=0)
    step = envs.envs[1].step
    envs.envs[1].step = functools.partial(_raise, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="environment 1"):
        envs.step([LOOK] * 2)
    envs.envs[1].step = step
    with pytest.raises(ResetNeeded, match=r"environments \[1\]"):
        envs.step([LOOK] * 2)
    envs.reset(options={"reset_mask": np.array([False, True])})
    assert envs.step([LOOK] * 2)[4]["turn"].tolist() == [2, 1]
    envs.close()


def test_all_members_have_finished_before_an_error_is_raised():
    """No thread is running any more when the user sees the error."""
    envs = vector(2)
    envs.reset(seed=0)
    slow, order = envs.envs[1].step, []
    has_raised = threading.Event()

    def first(action):
        has_raised.set()
        raise RuntimeError("a bug")

    def second(action):
        assert has_raised.wait(30)
        order.append("stepped")
        return slow(action)

    envs.envs[0].step, envs.envs[1].step = first, second
    with pytest.raises(RuntimeError, match="a bug"):
        envs.step([LOOK] * 2)
    assert order == ["stepped"]
    assert len(envs.envs[1].episode.turns) == 1
    envs.close()


@pytest.mark.parametrize("action", [None, 5, b"x", ["x"], np.array("x")], ids=repr)
def test_an_action_that_is_not_text_is_rejected_before_any_member_steps(action):
    envs = vector(4)
    envs.reset(seed=0)
    with pytest.raises(TypeError, match="environment 3: an action is the policy's text"):
        envs.step([LOOK, LOOK, LOOK, action])
    assert envs.step([LOOK] * 4)[4]["turn"].tolist() == [1] * 4
    envs.close()


def test_a_single_string_is_not_a_sequence_of_actions():
    envs = vector(2)
    envs.reset(seed=0)
    with pytest.raises(TypeError, match="got one str"):
        envs.step("hm")
    envs.close()


def test_the_action_of_a_restarting_member_is_ignored():
    envs = vector(2)
    envs.reset(seed=0)
    envs.step(["<answer>1</answer>", LOOK])
    assert envs.step([None, LOOK])[4]["turn"].tolist() == [0, 2]
    envs.close()


@pytest.fixture
def broken_term():
    @register_reward_term("broken")
    def broken(trajectory):
        raise TypeError("no such column")

    yield
    unregister_reward_term("broken")


def own_vector():
    return vector(2)


def sync_vector():
    return SyncVectorEnv([toy] * 2)


def async_vector():
    return AsyncVectorEnv([toy] * 2, shared_memory=False)


@pytest.mark.filterwarnings("ignore:.*ERROR.*:UserWarning")
@pytest.mark.parametrize("make", [own_vector, sync_vector, async_vector])
def test_a_failing_reward_term_raises_in_every_kind_of_vector_environment(make, broken_term):
    envs = make()
    envs.reset(seed=0)
    with pytest.raises(
        ValueError, match=r"reward term 'broken' failed .*TypeError: no such column"
    ):
        envs.step([LOOK, "<answer>5</answer>"])
    envs.close(**({"terminate": True} if make is async_vector else {}))


class _Lacking(InProcessSandbox):
    """A sandbox whose backend this machine lacks."""

    def session(self, images=(), *, seed=0):
        raise SandboxUnavailableError("no engine answers; start it")


def test_a_missing_backend_is_not_a_lost_member():
    envs = vector(2, sandbox=_Lacking())
    envs.reset(seed=0)
    with pytest.raises(SandboxUnavailableError, match="environment 1: no engine answers; start it"):
        envs.step(["<answer>5</answer>", LOOK])
    envs.close()


@pytest.mark.parametrize("count", [1, 3])
def test_a_missing_named_backend_is_rejected_at_reset(monkeypatch, count):
    def open_one(backend, *, limits):
        raise SandboxUnavailableError(f"no {backend} here; start it")

    monkeypatch.setattr(shared_sandbox, "open_sandbox", open_one)
    monkeypatch.setattr(shared_sandbox, "_usable", set())
    envs = vector(count, sandbox="docker")
    with pytest.raises(SandboxUnavailableError, match="environment 0: no docker here; start it"):
        envs.reset(seed=0)
    envs.close()
    envs = vector(count, sandbox="docker", interface="text")
    envs.reset(seed=0)
    assert envs.step(["<answer>1</answer>"] * count)[2].all()
    envs.close()


def test_a_member_whose_sandbox_fails_at_reset_starts_at_its_next_step():
    envs = vector(2)
    reset = envs.envs[0].reset

    def fails(**settings):
        raise SandboxError("the disk of the sandbox is full")

    envs.envs[0].reset = fails
    _, infos = envs.reset(seed=0)
    assert infos["is_valid"].tolist() == [False, True]
    envs.envs[0].reset = reset
    *_, truncations, infos = envs.step([LOOK] * 2)
    assert (truncations.tolist(), infos["turn"].tolist()) == ([False, False], [0, 1])
    envs.close()


def test_a_failing_call_names_its_member():
    envs = vector(2)
    envs.reset(seed=0)
    envs.step(["<answer>1</answer>", LOOK])
    with pytest.raises(RuntimeError, match="environment 1: the episode has not ended"):
        envs.call("trajectory")
    envs.close()


def _raise(error, action):
    raise error


def test_a_failing_sandbox_truncates_every_member_and_raises_nothing():
    sandbox = InProcessSandbox()
    envs = vector(3, sandbox=sandbox)
    envs.reset(seed=0)
    sandbox.is_down = True
    *_, truncations, infos = envs.step([LOOK, LOOK, "<answer>1</answer>"])
    assert truncations.tolist() == [True, True, False]
    assert infos["is_valid"].tolist() == [False, False, True]
    envs.close()


def test_without_autoreset_an_ended_member_waits_for_its_reset():
    envs = vector(2, autoreset_mode="Disabled")
    envs.reset(seed=0)
    envs.step(["<answer>1</answer>", LOOK])
    _, rewards, terminations, _, infos = envs.step(["<answer>1</answer>", LOOK])
    assert (rewards[0], terminations.tolist()) == (0.0, [True, False])
    assert infos["reward_terms"]["accuracy"].tolist() == [0.0, 0.0]
    _, infos = envs.reset(options={"reset_mask": np.array([True, False])})
    assert infos["_task_id"].tolist() == [True, False]
    _, _, terminations, _, infos = envs.step([LOOK, LOOK])
    assert (terminations.any(), infos["turn"].tolist()) == (False, [1, 3])
    envs.close()


def test_every_member_can_be_given_its_own_task():
    envs = vector(2)
    ids = ["toy/counting/train/3", "toy/counting/train/4"]
    assert envs.reset(options={"task_id": ids})[1]["task_id"].tolist() == ids
    assert envs.reset(options={"task_id": ids[0]})[1]["task_id"].tolist() == [ids[0]] * 2
    with pytest.raises(ValueError, match="no task"):
        envs.reset(options={"task_id": "x"})
    with pytest.raises(ValueError, match="1 values for 2 members"):
        envs.reset(options={"task_id": ids[:1]})
    envs.close()


def test_seeds_are_one_for_all_members_or_one_per_member():
    envs = vector(2)
    both = envs.reset(seed=4)[1]["task_id"].tolist()
    assert envs.reset(seed=[4, 5])[1]["task_id"].tolist() == both
    with pytest.raises(ValueError, match="as many seeds"):
        envs.reset(seed=[4])
    envs.close()


def test_misuse_is_reported_before_any_member_steps():
    envs = vector(2)
    with pytest.raises(ResetNeeded):
        envs.step(["", ""])
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="as many actions, got 1"):
        envs.step([""])
    envs.close()
    with pytest.raises(ValueError, match="num_envs"):
        vector(0)


def test_each_member_is_rendered():
    envs = vector(2, render_mode="ansi")
    envs.reset(seed=0)
    assert [text.splitlines()[-1] for text in envs.render()] == ["How many dots are there?"] * 2
    envs.close()
