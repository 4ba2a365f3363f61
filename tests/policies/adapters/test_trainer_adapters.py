"""verl's and verifiers' loops play our episodes and get correct results."""

import asyncio
import subprocess
import sys
from types import SimpleNamespace

import gymnasium as gym
import pytest
from codedance.envs.episode_factory import EpisodeHost, HostSettings
from codedance.envs.suites.nano.suite import FAMILIES
from codedance.policies.adapters.verifiers_env import TRAJECTORY, multi_turn_class
from codedance.policies.adapters.verifiers_taskset import converse
from codedance.policies.adapters.verl_loop import agent_loop_class, dataset_row
from codedance.policies.adapters.wire_messages import read_image, read_message
from codedance.policies.inference.openai_client import openai_message

from ..players import AbsentSandbox, code
from .recorded_interfaces import (
    VERIFIERS,
    AgentLoopBase,
    AgentLoopOutput,
    Interaction,
    TokenOutput,
)

TASK = "nano/digit/train/hard/1"  # its program returns a crop
SETTINGS = HostSettings(system_prompt="", max_turns=4)


@pytest.fixture
def host(sandbox):
    return EpisodeHost(SETTINGS, sandbox=sandbox)


@pytest.fixture
def texts(host):
    """Turns that call the tool, fail, and answer."""
    task = host.suite.task(TASK)
    program = FAMILIES["digit"].programs(task.question)["exact"]
    return [code(program), code("1 / 0"), f"<answer>{task.answer}</answer>"]


def rewards_in_the_environment(texts, sandbox):
    """Return the reward terms of the same texts in the Gymnasium environment, summed over steps."""
    env = gym.make("codedance.envs:codedance/VisualCode-v0", sandbox=sandbox, max_turns=4)
    env.reset(seed=0, options={"task_id": TASK})
    infos = [env.step(text)[-1]["reward_terms"] for text in texts]
    return {name: sum(info[name] for info in infos) for name in infos[0]}


class Processor:
    """The image part of a processor."""

    def __init__(self, image_processor):
        self.image_processor = image_processor


class Server:
    """verl's server manager, which returns the given texts in order."""

    def __init__(self, chat, texts, *, stop_reason="completed"):
        self.chat, self.texts, self.stop_reason = chat, list(texts), stop_reason
        self.asked = []

    async def generate(self, request_id, *, prompt_ids, sampling_params, image_data=None):
        self.asked.append((request_id, prompt_ids, image_data))
        ids = [*self.chat.encode_text(self.texts.pop(0)), self.chat.end_id]
        return TokenOutput(ids, [-0.5] * len(ids), self.stop_reason)


def run_loop(model, host, server, *, response_length=4096):
    rollout = SimpleNamespace(response_length=response_length)
    config = SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=rollout))
    loop = agent_loop_class(AgentLoopBase, AgentLoopOutput)(
        trainer_config=SimpleNamespace(config=config),
        server_manager=server,
        tokenizer=model.chat.tokenizer,
        processor=Processor(model.pictures.processor),
        dataset_cls=None,
        data_config=None,
        tools=None,
        suite="nano",
        system_prompt="",
    )
    loop.host = host
    row = dataset_row(host.suite.task(TASK))
    return asyncio.run(loop.run({"temperature": 1.0}, extra_info=row["extra_info"]))


def test_verl_gets_the_exact_ids_with_the_tool_replies_masked(tiny_model, host, texts):
    server = Server(tiny_model.chat, texts)
    out = run_loop(tiny_model, host, server)
    own = [i for i, mine in zip(out.response_ids, out.response_mask, strict=True) if mine]
    chat = tiny_model.chat
    assert own == [i for text in texts for i in (*chat.encode_text(text), chat.end_id)]
    assert [score for score in out.response_logprobs if score] == [-0.5] * len(own)
    # Each prompt is the previous prompt, the generated ids and the reply: nothing is re-encoded.
    whole = out.prompt_ids + out.response_ids
    assert all(whole[: len(ids)] == ids for _, ids, _ in server.asked)
    assert [len(images) for _, _, images in server.asked] == [1, 2, 2]
    assert len({request for request, _, _ in server.asked}) == 1


def test_verl_gets_every_image_for_the_image_tokens(tiny_model, host, texts):
    out = run_loop(tiny_model, host, Server(tiny_model.chat, texts))
    images = out.multi_modal_data["images"]
    count = (out.prompt_ids + out.response_ids).count(tiny_model.chat.image_id)
    assert len(images) == 2
    assert count == sum(tiny_model.pictures.token_count(image) for image in images)


def test_verl_gets_the_reward_of_the_environment(tiny_model, host, texts, sandbox):
    out = run_loop(tiny_model, host, Server(tiny_model.chat, texts))
    expected = rewards_in_the_environment(texts, sandbox)
    assert out.extra_fields["reward_terms"] == pytest.approx(expected)
    assert out.reward_score == pytest.approx(sum(expected.values()))
    assert out.extra_fields["failed_turns"] == [False, True, False]
    assert out.num_turns == 6


@pytest.mark.parametrize("why", ["sandbox", "server"])
def test_verl_does_not_train_on_lost_episodes(tiny_model, host, texts, why):
    if why == "sandbox":
        host = EpisodeHost(SETTINGS, sandbox=AbsentSandbox())
    reason = "aborted" if why == "server" else "completed"
    out = run_loop(tiny_model, host, Server(tiny_model.chat, texts, stop_reason=reason))
    assert not any(out.response_mask)
    assert out.reward_score == 0.0
    assert not out.extra_fields["is_valid"]


def test_verls_response_limit_cuts_the_episode(tiny_model, host, texts):
    first = len(tiny_model.chat.encode_text(texts[0])) + 1
    out = run_loop(tiny_model, host, Server(tiny_model.chat, texts), response_length=first + 3)
    assert out.extra_fields["ending"] == "token_limit"
    assert len(out.response_ids) == first
    assert out.reward_score < 0.0


def roll_out(host, replies):
    """Play one rollout as verifiers does, with the given replies in order."""
    env = multi_turn_class(VERIFIERS)(host, dataset=None)
    left = iter(replies)
    row = {"info": {"task_id": TASK}, "prompt": [{"role": "user", "content": "?"}]}
    return env, asyncio.run(env.rollout(row, lambda messages: next(left)))


def test_verifiers_shows_the_question_and_the_crop_to_the_model(host, texts):
    _, state = roll_out(host, [(text, False) for text in texts])
    shown = [
        [part["type"] for part in message["content"]]
        for message in state["messages"]
        if message["role"] == "user" and isinstance(message["content"], list)
    ]
    assert shown == [["image_url", "text"], ["text", "image_url", "text"]]
    assert "ZeroDivisionError" in state["messages"][-2]["content"]


def test_verifiers_reads_text_parts_without_thoughts(host):
    parts = [{"type": "thinking", "thinking": "<answer>4</answer>"}]
    _, state = roll_out(host, [([*parts, {"type": "text", "text": "<answer>5</answer>"}], False)])
    assert state[TRAJECTORY].answer == "5"


def test_verifiers_loses_a_rollout_without_text_in_its_reply(host):
    _, state = roll_out(host, [([{"type": "refusal", "refusal": "I will not."}], False)])
    assert "I will not." in str(state["error"])


def test_verifiers_scores_siblings_together_and_each_turn_separately(host, texts):
    env, failing = roll_out(host, [(text, False) for text in texts])
    _, wrong = roll_out(host, [(texts[0], False), ("<answer>no</answer>", False)])
    env.rubric.score_group([failing, wrong])
    # Accuracy ½, d = 0.3: 1 + 0.3 · 1.5 · 1/2 for the right one, 0.3 · 0.5 for the wrong one.
    assert failing["reward"] == pytest.approx(1.0 + 0.225)
    assert wrong["reward"] == pytest.approx(0.15)
    looked, failed, answered = [step["advantage"] for step in failing["trajectory"]]
    assert answered == pytest.approx((1.225 - 0.15) / 2)
    assert failed < looked <= answered


def test_a_rollout_lost_by_verifiers_is_excluded_from_the_mean(host, texts):
    env, right = roll_out(host, [(texts[2], False)])
    _, lost = roll_out(EpisodeHost(SETTINGS, sandbox=AbsentSandbox()), [(texts[0], False)])
    assert lost["error"] is not None
    env.rubric.score_group([right, lost])
    assert lost["reward"] == 0.0
    assert [step["advantage"] for step in lost["trajectory"]] == [0.0]
    assert [step["advantage"] for step in right["trajectory"]] == [0.0]


def test_a_reply_cut_by_verifiers_ends_the_episode_by_the_token_limit(host, texts):
    env, state = roll_out(host, [(texts[2], True)])
    env.rubric.score_group([state])
    assert state["reward"] == pytest.approx(-0.2)


def test_verifiers_agent_gets_the_question_then_the_output_of_its_code(host, texts):
    episode = host.open(TASK, seed=0)
    interaction = Interaction(list(texts))
    asyncio.run(converse(episode, interaction))
    trajectory = host.finish(episode, "agent")
    assert trajectory.accuracy == 1.0
    assert len(interaction.heard) == 3
    assert interaction.heard[0][0]["content"][0]["type"] == "image_url"


def test_an_agent_that_stops_without_an_answer_is_cut(host, texts):
    episode = host.open(TASK, seed=0)
    asyncio.run(converse(episode, Interaction(texts[:1])))
    assert host.finish(episode, "agent").ending == "token_limit"


def test_an_agent_whose_model_is_away_loses_the_episode(host, texts):
    episode = host.open(TASK, seed=0)
    interaction = Interaction(texts[:1])
    interaction.trace.errors.append("ProviderError")
    asyncio.run(converse(episode, interaction))
    assert host.finish(episode, "agent").ending == "infrastructure"


def test_a_reply_that_verifiers_cut_is_not_read_as_an_answer(host, texts):
    episode = host.open(TASK, seed=0)
    asyncio.run(converse(episode, Interaction([(texts[2], "length")])))
    assert host.finish(episode, "agent").ending == "token_limit"


def test_a_message_survives_the_wire_with_its_images(host):
    (message,) = [one for one in host.open(TASK, seed=0).opening if one.role == "user"]
    read = read_message(openai_message(message))
    assert [part for part in read.parts if isinstance(part, str)] == [
        part for part in message.parts if isinstance(part, str)
    ]
    assert [image.tobytes() for image in read.images] == [
        image.convert("RGB").tobytes() for image in message.images
    ]


def test_an_image_that_is_not_a_data_url_is_refused():
    with pytest.raises(ValueError, match="expected a data URL"):
        read_image("https://example.org/picture.png")


ADAPTERS = (
    *("verl_loop", "verifiers_env", "verifiers_taskset", "verifiers_renderer"),
    *("trl_grpo", "openenv_server", "nemo_gym_agent", "wire_messages"),
)


@pytest.mark.parametrize("name", ADAPTERS)
def test_importing_an_adapter_imports_neither_trainer_nor_torch(name):
    heavy = {"torch", "transformers", "verl", "verifiers", "datasets", "trl", "openenv", "nemo_gym"}
    program = f"import sys, codedance.policies.adapters.{name}; print(set(sys.modules) & {heavy!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
