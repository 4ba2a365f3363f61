"""Episodes of an OpenEnv client, without OpenEnv: `make test-trainers` has its server."""

import pytest
from codedance.envs.episode_factory import EpisodeHost, HostSettings
from codedance.policies.adapters.openenv_server import Session
from codedance.policies.adapters.wire_messages import read_message

from ..players import AbsentSandbox, code

SETTINGS = HostSettings(system_prompt="", max_turns=3)


@pytest.fixture
def session(sandbox):
    opened = Session(EpisodeHost(SETTINGS, sandbox=sandbox))
    yield opened
    opened.close()


def test_an_episode_gives_messages_then_its_reward_and_record(session):
    (task,) = session.host.tasks(1)
    (opening,) = session.begin(task.id, seed=0)
    assert read_message(opening).images[0].tobytes() == task.images[0].tobytes()
    told = session.step(code("print(6 * 7)"), is_cut=False)
    assert told["reward"] == 0.0
    assert "42" in str(told["messages"])
    last = session.step(f"<answer>{task.answer}</answer>", is_cut=False)
    assert last["done"]
    assert last["record"]["reward_terms"]["accuracy"] == 1.0
    assert last["reward"] == sum(last["record"]["reward_terms"].values())


def test_an_episode_lost_to_the_sandbox_has_no_reward():
    session = Session(EpisodeHost(SETTINGS, sandbox=AbsentSandbox()))
    session.begin(session.host.tasks(1)[0].id, seed=0)
    told = session.step(code("1"), is_cut=False)
    assert (told["done"], told["reward"]) == (True, None)
    assert told["record"]["is_valid"] is False


def test_a_reply_that_a_limit_cut_is_not_read_as_an_answer(session):
    (task,) = session.host.tasks(1)
    session.begin(task.id, seed=0)
    told = session.step(f"<answer>{task.answer}</answer>", is_cut=True)
    assert told["record"]["ending"] == "token_limit"


def test_a_step_needs_an_episode(session):
    with pytest.raises(RuntimeError, match="call reset before step"):
        session.step("<answer>1</answer>", is_cut=False)


def test_tasks_of_another_split_are_refused(session):
    assert session.task("train", 3)["id"] == session.host.tasks(1, start=3)[0].id
    with pytest.raises(IndexError, match="expected the split 'train', got 'test'"):
        session.task("test", 3)
