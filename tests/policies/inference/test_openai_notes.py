"""A client that knows a model's notes plays it as it was trained, without its weights."""

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codedance.envs.picture import fit_picture
from codedance.envs.suites.nano.suite import NanoSuite
from codedance.envs.types import Task, Trajectory
from codedance.pipelines.serving.model_server import ModelServer
from codedance.policies import load_policy, rollout
from codedance.policies.inference.endpoint import Endpoint
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.interface import Policy, Sampling
from codedance.policies.loading import NANO_FOLDER
from codedance.policies.models.model_folder import ModelFolderError, load_prompt_encoder
from codedance.policies.rollouts.trained_with import trained_interface
from codedance.sandbox.types import Sandbox
from PIL import Image

from ..players import task
from .chat_server import Server, asks, completion, counts

GREEDY = Sampling(temperature=0.0)
HELD_OUT = (0, 4, 7, 9, 19)  # an answer at once, code, and code that returns crops


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the nano model's folder without its weights, with more notes."""
    made = tmp_path / "nano"
    shutil.copytree(NANO_FOLDER, made, ignore=shutil.ignore_patterns("*.safetensors"))
    notes = made / "codedance.json"
    known = json.loads(notes.read_text())
    notes.write_text(json.dumps(known | {"interface": "box", "max_pixels": 40_000}))
    return made


def images_of(body: dict[str, Any]) -> list[Image.Image]:
    parts = [part for message in body["messages"] for part in message["content"]]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


def texts(trajectories: list[Trajectory]) -> list[list[str]]:
    return [[turn.text for turn in one.turns] for one in trajectories]


def test_episodes_are_opened_as_the_folder_says(server: Server, folder: Path, sandbox: Sandbox):
    server.answer = lambda _: completion("<answer>5</answer>")
    policy = load_policy("m", base_url=server.url, endpoint=Endpoint(notes=str(folder)))
    assert trained_interface(policy) == "box"
    rollout(policy, [task()], sandbox=sandbox, evidence=False)
    body = server.requests[0][1]
    assert [message["role"] for message in body["messages"]] == ["user"]  # no system message


def test_images_go_out_at_the_models_own_size(server: Server, folder: Path, sandbox: Sandbox):
    server.answer = lambda _: completion("<answer>5</answer>")
    policy = load_policy("m", base_url=server.url, endpoint=Endpoint(notes=str(folder)))
    one = NanoSuite("test")[0]  # 224 pixels wide; the model's own size is 112
    rollout(policy, [one], sandbox=sandbox, interface="code", evidence=False)
    (sent,) = images_of(server.requests[0][1])
    assert (one.images[0].size, sent.size) == ((224, 224), (112, 112))
    seen = fit_picture(one.images[0], 40_000)  # by the environment, as the notes say
    assert np.array_equal(sent, load_prompt_encoder(NANO_FOLDER).pictures.at_model_size(seen))


def test_the_prompt_counts_for_the_limit_before_the_server_has_counted(
    server: Server, folder: Path
):
    policy = load_policy("m", base_url=server.url, endpoint=Endpoint(notes=str(folder)))
    (reply,) = policy.reply([asks("q")], sampling=Sampling(max_tokens=10))
    assert (reply.text, reply.is_cut) == ("", True)
    assert server.requests == []
    server.answer = lambda _: completion("x", usage=counts(30, 1))
    policy.reply([asks("q")], sampling=Sampling(max_tokens=200, max_new_tokens=500))
    encoder = load_prompt_encoder(NANO_FOLDER)
    prompt = len(encoder.chat.open_prompt(asks("q").messages))
    assert server.requests[0][1]["max_tokens"] == 200 - prompt


@pytest.mark.parametrize("notes", ["nowhere", "a/b/c"])
def test_notes_of_a_folder_that_does_not_exist_are_refused(notes: str):
    with pytest.raises(ModelFolderError, match=f"no model folder at {notes} to read the notes of"):
        load_policy("openai:m", base_url="http://127.0.0.1:9/v1", endpoint=Endpoint(notes=notes))


def play(policy: Policy, tasks: list[Task], sandbox: Sandbox) -> list[Trajectory]:
    return rollout(policy, tasks, sandbox=sandbox, sampling=GREEDY, evidence=False, seed=1)


@pytest.mark.slow
def test_with_notes_a_server_that_has_none_gives_the_replies_of_the_folder_in_process(
    sandbox: Sandbox,
):
    near = load_policy("nano", device="cpu")
    assert isinstance(near, VisionLanguagePolicy)
    tasks = [NanoSuite("test")[index] for index in HELD_OUT]
    own = play(near, tasks, sandbox)
    # As vLLM would: the weights alone, nothing of the setting that they were trained in.
    with ModelServer(VisionLanguagePolicy(near.model, policy_id="nano")) as server:
        there = {"base_url": server.url}
        knowing = play(
            load_policy("openai:nano", endpoint=Endpoint(notes="nano", **there)), tasks, sandbox
        )
        ignorant = play(load_policy("openai:nano", endpoint=Endpoint(**there)), tasks, sandbox)
    assert texts(knowing) == texts(own)
    assert [one.accuracy for one in knowing] == [one.accuracy for one in own]
    shown = [any(turn.execution and turn.execution.images for turn in one.turns) for one in own]
    assert sum(shown) >= 3  # whose next turn sees an image that the code returned
    assert texts(ignorant) != texts(own)
