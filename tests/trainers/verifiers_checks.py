"""verifiers 0.4: its environment, agent, training client and traces on our episodes."""

import asyncio
import json
import math
import shlex
import subprocess
import sys

import pytest
import torch
import visual_code
from codedance.envs.episode_factory import EpisodeHost
from codedance.policies import load_policy
from codedance.policies.adapters import verifiers_taskset
from codedance.policies.adapters.verifiers_renderer import RENDERER
from codedance.policies.loading import NANO_FOLDER
from exact_update import scores, update
from token_server import TokenServer
from verifiers.v1.clients import TrainClientConfig
from verifiers_reinforce import client_of, make_environment, play, sample_of

from trainers.page import (
    FailingSandbox,
    blocks_of,
    commands_of,
    execute,
    free_port,
    say,
    served,
    serving_nano,
    trains,
)

MODULE, LINES, AFTER, CLIENT = blocks_of("verifiers")


@pytest.fixture(scope="module")
def policy():
    return load_policy("nano")


@pytest.fixture(scope="module")
def engine(policy):
    with TokenServer(policy) as server:
        yield server


@pytest.fixture(scope="module")
def episodes(engine):
    environment = make_environment(count=12)
    context = client_of(NANO_FOLDER, engine.url)
    return asyncio.run(play(environment, list(environment.taskset), context))


def test_the_lines_of_the_page_give_a_first_reward(engine):
    assert execute(MODULE)["VisualCodeEnv"] is visual_code.VisualCodeEnv  # by this name
    names = execute(LINES)
    context = client_of(NANO_FOLDER, engine.url)
    tasks = list(names["environment"].taskset)[:2]
    (trace,) = asyncio.run(play(names["environment"], tasks, context))[0].traces
    evidence = execute(AFTER, trace=trace)["evidence"]
    say("a first reward:", trace.reward, evidence)
    assert trace.ok
    assert trace.reward == sum(evidence["reward_terms"].values())


def test_the_client_of_the_page_encodes_as_we_do():
    config = TrainClientConfig(base_url="http://127.0.0.1:9/v1", **execute(CLIENT)["client"])
    assert config.renderer.import_path == RENDERER


def test_the_command_of_the_page_plays_against_a_server(tmp_path):
    port = free_port()
    _, line = commands_of("verifiers")
    words = shlex.split(line.replace("8765", str(port)))
    run = (sys.executable, "-c", "from verifiers.v1.cli.eval.main import main; main()")
    with served(*serving_nano(port), port=port):
        done = subprocess.run([*run, *words[1:]], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (traces,) = tmp_path.glob("outputs/*/traces.jsonl")
    kept = [json.loads(line) for line in traces.read_text().splitlines()]
    found = [trace for one in kept for trace in one.get("traces", [one])]
    assert len(found) == 4
    assert all(trace["ok"] for trace in found)
    assert all("accuracy" in trace["rewards"] for trace in found)


def test_a_trace_has_the_exact_ids_that_the_engine_sampled(policy, episodes):
    samples = [sample_of(episode) for episode in episodes]
    assert all(episode.ok for episode in episodes)
    assert max(len(one.images) for one in samples) > 1  # a tool returned one
    for sample, found in zip(samples, scores(policy.model, samples), strict=True):
        own = [v for v, is_own in zip(sample.log_probabilities, sample.mask, strict=True) if is_own]
        assert torch.allclose(found, torch.tensor(own), atol=1e-4)
        count = sum(policy.model.pictures.token_count(image) for image in sample.images)
        assert list(sample.ids).count(policy.model.chat.image_id) == count


def test_what_the_tool_said_is_masked(policy, episodes):
    (trace,) = max(episodes, key=lambda one: one.traces[0].num_turns).traces
    branch = trace.branches[0]
    assert trace.num_turns > 1
    own = [i for i, is_own in zip(branch.token_ids, branch.sampled_mask, strict=True) if is_own]
    said = [message.content for message in trace.assistant_messages]
    assert policy.model.chat.decode(own) == "".join(said)


def test_a_lost_episode_is_not_ok_and_has_no_reward(engine, monkeypatch, policy):
    sandbox = FailingSandbox()
    sandbox.fails = True
    monkeypatch.setattr(
        verifiers_taskset, "_host", lambda settings: EpisodeHost(settings, sandbox=sandbox)
    )
    environment = make_environment(count=8)
    context = client_of(NANO_FOLDER, engine.url)
    played = asyncio.run(play(environment, list(environment.taskset), context))
    lost = [episode for episode in played if not episode.ok]
    sandbox.close()
    assert 0 < len(lost) < 8  # those that answer without code are not lost
    for episode in lost:
        (trace,) = episode.traces
        assert not trace.ok
        assert trace.rewards == {}
        assert trace.last_error.type == "SandboxError"
        assert trace.info["codedance"]["is_valid"] is False
        assert math.isnan(sample_of(episode).reward)


def test_a_lost_episode_changes_neither_the_mean_nor_the_weights(episodes):
    samples = [sample_of(episode) for episode in episodes[:6]]
    lost = sample_of(episodes[6])
    lost.reward = math.nan
    policies = [load_policy("nano") for _ in range(2)]
    means = [
        update(one, torch.optim.SGD(one.model.model.parameters(), lr=0.1), given)
        for one, given in zip(policies, (samples, [*samples, lost]), strict=True)
    ]
    assert means[0] == means[1]
    with_, without = (one.model.model.state_dict() for one in policies)
    assert all(torch.equal(with_[name], without[name]) for name in with_)


def test_a_model_that_is_away_loses_the_episode():
    environment = make_environment(count=1)
    context = client_of(NANO_FOLDER, "http://127.0.0.1:9/v1")
    (episode,) = asyncio.run(play(environment, list(environment.taskset), context))
    assert not episode.ok
    (trace,) = episode.traces
    assert trace.last_error.type == "ProviderError"
    assert trace.rewards == {}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_on_its_traces_raises_the_held_out_reward(seed):
    trains("verifiers_reinforce.py", seed)
