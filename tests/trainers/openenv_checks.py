"""OpenEnv 0.10: its server, its clients and its routes of tasks on our episodes."""

import math

import httpx
import pytest
import torch
from codedance.envs.episode_factory import EpisodeHost, HostSettings
from codedance.envs.suites.nano.suite import FAMILIES
from codedance.policies import load_policy
from codedance.policies.adapters.openenv_server import make_app
from codedance.policies.adapters.wire_messages import read_message
from exact_update import scores, update
from openenv import GenericEnvClient
from openenv_reinforce import play, serving

from trainers.page import FailingSandbox, blocks_of, execute, say, trains

LINES, PLAY = blocks_of("OpenEnv")
SETTINGS = HostSettings(families=("bars", "digit"), max_turns=3, system_prompt="")


@pytest.fixture(scope="module")
def sandbox():
    opened = FailingSandbox()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def host(sandbox):
    return EpisodeHost(SETTINGS, sandbox=sandbox)


@pytest.fixture(scope="module")
def url(host):
    with serving(make_app(host, sessions=12)) as address:
        yield address


@pytest.fixture
def clients(url):
    opened = [GenericEnvClient(base_url=url).sync() for _ in range(12)]
    for client in opened:
        client.connect()
    yield opened
    for client in opened:
        client.close()


def code(program):
    return f"<code>\n```python\n{program}\n```\n</code>"


def test_the_lines_of_the_page_give_a_first_reward():
    names = execute(LINES)
    task = names["tasks"][0]
    program = FAMILIES[task.family].programs(task.question)["exact"]
    replies = iter([code(program), f"<answer>{task.answer}</answer>"])
    with serving(names["app"]) as address, GenericEnvClient(base_url=address).sync() as client:
        given = {"client": client, "tasks": names["tasks"], "write": lambda _: next(replies)}
        played = execute(PLAY, **given)
    names["host"].close()
    say("a first reward:", played["reward"], played["evidence"])
    assert played["reward"] == sum(played["evidence"]["reward_terms"].values())
    assert played["evidence"]["reward_terms"]["accuracy"] == 1.0


def test_images_that_code_returned_reach_the_client(clients, host):
    (task,) = [task for task in host.tasks(20) if task.id.startswith("nano/digit/train/hard")][:1]
    opening = clients[0].reset(task_id=task.id).observation["messages"]
    told = clients[0].step({"text": code("input_image.crop((3, 5, 43, 35))")})
    crop = task.images[0].crop((3, 5, 43, 35))
    (message,) = map(read_message, told.observation["messages"])
    assert message.images[0].tobytes() == crop.tobytes()
    assert read_message(opening[-1]).images[0].tobytes() == task.images[0].tobytes()
    assert (told.done, told.reward) == (False, 0.0)


def test_the_tasks_are_those_of_the_suite(url, host):
    with GenericEnvClient(base_url=url).sync() as client:
        client.reset(index=5)
        assert client.state()["task_id"] == host.tasks(1, start=5)[0].id
    assert httpx.get(f"{url}/codedance/splits").json()[0]["name"] == "train"
    split = {"split": "train"}
    (first, *_) = httpx.post(f"{url}/codedance/tasks", json=split).json()["tasks"]
    one = httpx.post(f"{url}/codedance/task", json=split | {"index": 5}).json()
    say(first, one, httpx.post(f"{url}/codedance/num_tasks", json=split).json())
    assert host.tasks(1, start=5)[0].id in str(one)
    assert httpx.post(f"{url}/codedance/task", json={"split": "x", "index": 5}).is_error
    schema = httpx.get(f"{url}/schema").json()
    assert set(schema["action"]["properties"]) >= {"text", "is_cut"}


def test_ids_of_an_episode_are_exact(clients, host):
    policy = load_policy("nano")
    samples = play(policy, clients, host.tasks(12), 0)
    assert max(len(one.images) for one in samples) > 1
    for sample, found in zip(samples, scores(policy.model, samples), strict=True):
        own = [v for v, is_own in zip(sample.log_probabilities, sample.mask, strict=True) if is_own]
        assert torch.allclose(found, torch.tensor(own), atol=1e-4)


def test_a_reply_cut_by_a_limit_ends_the_episode(clients, host):
    clients[0].reset(task_id=host.tasks(1)[0].id)
    told = clients[0].step({"text": "<answer>5", "is_cut": True})
    assert told.done
    assert told.observation["record"]["ending"] == "token_limit"
    assert told.reward == pytest.approx(-0.2)


def test_a_lost_episode_has_no_reward_and_changes_no_weight(clients, host, sandbox):
    sandbox.fails = True
    samples = play(load_policy("nano"), clients, host.tasks(12), 0)
    clients[0].reset(task_id=host.tasks(1)[0].id)
    told = clients[0].step({"text": code("1")})
    sandbox.fails = False
    assert (told.done, told.reward) == (True, None)
    assert told.observation["record"]["is_valid"] is False

    kept = [one for one in samples if not math.isnan(one.reward)]
    assert 1 < len(kept) < len(samples)  # those that answer without code are not lost
    policies = [load_policy("nano") for _ in range(2)]
    means = [
        update(one, torch.optim.SGD(one.model.model.parameters(), lr=0.1), given)
        for one, given in zip(policies, (kept, samples), strict=True)
    ]
    assert means[0] == means[1]
    one, other = (each.model.model.state_dict() for each in policies)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_client_that_leaves_frees_its_place(url):
    for _ in range(30):  # more than the server has places
        with GenericEnvClient(base_url=url).sync() as client:
            client.reset(index=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_on_it_raises_the_held_out_reward(seed):
    trains("openenv_reinforce.py", seed)
