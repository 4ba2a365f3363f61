"""Any text of a policy is an action, and an image of any size can be observed."""

import math

import gymnasium as gym
import pytest
from codedance.envs.visual_code import VisualCodeEnv
from hypothesis import given
from hypothesis import strategies as st

from .toys import InProcessSandbox, ToySuite, make_task, noise


@given(st.text(st.characters(), max_size=40))
def test_text_in_any_unicode_is_an_action(text):
    env = VisualCodeEnv(ToySuite(), sandbox=InProcessSandbox())
    env.reset(seed=0)
    assert text in env.action_space
    observation, reward, *_ = env.step(text)
    assert observation in env.observation_space
    assert math.isfinite(reward)


@pytest.mark.parametrize(
    "text",
    ["\ud800", "\0", "```python\nprint('\ud800')\n```", "<answer>\udfff</answer>", "😀" * 9999],
)
def test_lone_surrogates_and_similar_text_are_harmless(text):
    env = gym.make("codedance.envs:codedance/VisualCode-v0", observe="transcript")
    env.reset(seed=0)
    observation, *_ = env.step(text)
    assert observation in env.observation_space
    env.close()


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (5000, 10), (3000, 2000)])
def test_images_of_any_size_are_the_same_in_observation_and_code(sandbox, size):
    task = make_task(images=(noise(*size),))
    env = VisualCodeEnv(ToySuite(), sandbox=sandbox, max_pixels=1_000_000)
    observation, _ = env.reset(options={"task": task})
    assert observation in env.observation_space
    height, width, _ = observation["images"][0].shape
    assert height * width <= 1_000_000
    seen, *_ = env.step("```python\nprint(input_image.size)\n```")
    assert seen["text"] == f"<tool_response>\n({width}, {height})\n</tool_response>"
