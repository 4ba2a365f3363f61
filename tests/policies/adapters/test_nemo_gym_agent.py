"""Episodes of our NeMo Gym agent, without NeMo Gym: `make test-trainers` has its servers."""

import asyncio

import pytest
from codedance.envs.episode_factory import EpisodeHost, HostSettings
from codedance.policies.adapters.nemo_gym_agent import dataset_row, play, result_of, text_of

from ..players import AbsentSandbox, code

SETTINGS = HostSettings(system_prompt="", max_turns=3)


def said(text, **more):
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"type": "message", "role": "assistant", "content": [part]}
    return {
        "output": [{"type": "reasoning", "summary": []}, item],
        "incomplete_details": None,
    } | more


def run(host, responses):
    """Play an episode with given responses; return its result and what the model was asked."""
    asked, left = [], iter(responses)

    async def ask(items):
        asked.append(items)
        response = next(left)
        if isinstance(response, Exception):
            raise response
        return response

    (task,) = host.tasks(1)
    episode = host.open(task.id, seed=0)
    talk = asyncio.run(play(episode, ask))
    return result_of(host, episode, talk, {"temperature": 1.0}), asked


@pytest.fixture
def host(sandbox):
    return EpisodeHost(SETTINGS, sandbox=sandbox)


def test_an_episode_is_a_conversation_of_items_with_its_reward(host):
    (task,) = host.tasks(1)
    crop = code("input_image.crop((0, 0, 40, 30))")
    result, asked = run(host, [said(crop), said(f"<answer>{task.answer}</answer>")])
    kinds = [part["type"] for part in asked[0][0]["content"]]
    assert kinds == ["input_image", "input_text"]
    assert "input_image" in [part["type"] for part in asked[1][-1]["content"]]
    assert asked[1][:3] == [*asked[0], *said(crop)["output"]]
    assert result["responses_create_params"] == {"temperature": 1.0, "input": asked[0]}
    assert result["reward"] == sum(result["reward_terms"].values())
    assert result["reward_terms"]["accuracy"] == 1.0
    assert "_ng_failure_class" not in result


@pytest.mark.parametrize("why", ["sandbox", "model"])
def test_a_lost_episode_is_marked_and_has_no_reward(host, why):
    if why == "sandbox":
        result, _ = run(EpisodeHost(SETTINGS, sandbox=AbsentSandbox()), [said(code("1"))])
    else:
        result, _ = run(host, [OSError("the server is away")])
    assert result["reward"] is None
    assert (result["mask_sample"], result["_ng_failure_class"]) == (True, "transient")
    assert ("no session" if why == "sandbox" else "away") in result["error"]


def test_a_response_that_a_limit_cut_is_not_read_as_an_answer(host):
    (task,) = host.tasks(1)
    cut = said(
        f"<answer>{task.answer}</answer>", incomplete_details={"reason": "max_output_tokens"}
    )
    result, _ = run(host, [cut])
    assert result["ending"] == "token_limit"
    assert result["reward"] < 0.0


def test_reasoning_is_not_text():
    assert text_of(said("<answer>4</answer>")) == "<answer>4</answer>"


def test_a_row_names_the_task_and_the_agent_alone(host):
    (task,) = host.tasks(1)
    row = dataset_row(task, agent="ours")
    assert (row["task_id"], row["agent_ref"]["name"]) == (task.id, "ours")
    assert task.answer not in str(row).replace(task.id, "")
