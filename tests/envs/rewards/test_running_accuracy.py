import json

import gymnasium as gym
import pytest
from codedance.envs.running_accuracy import RunningAccuracy
from codedance.envs.visual_code import VisualCodeEnv

from ..toys import InProcessSandbox, ToySuite, make_task

LOOK = "```python\nprint(input_image.getpixel((3, 3)))\n```"


def wrapped(**settings):
    inner = VisualCodeEnv(ToySuite(), sandbox=InProcessSandbox())
    return RunningAccuracy(inner, **settings)


def answer(env, content, **task):
    env.reset(options={"task": make_task(**task)})
    return env.step(f"<answer>{content}</answer>")


def test_the_estimate_starts_at_the_recorded_rate():
    env = wrapped()
    assert env.estimate(make_task()) == 0.5
    assert env.estimate(make_task(pass_rate=0.25)) == 0.25


def test_each_scored_episode_updates_the_estimate():
    env = wrapped(prior_weight=2.0, decay=1.0)
    answer(env, 5)
    assert env.estimate(make_task()) == pytest.approx((1 + 1) / (2 + 1))
    answer(env, 6)
    assert env.estimate(make_task()) == pytest.approx((1 + 1) / (2 + 2))
    assert env.estimate(make_task(id="toy/counting/train/9")) == 0.5


def test_older_episodes_lose_weight():
    env = wrapped(prior_weight=1.0, decay=0.5)
    answer(env, 5)
    answer(env, 6)
    assert env.estimate(make_task()) == pytest.approx((0.5 + 0.5) / (1 + 1.5))


def test_families_can_share_an_estimate():
    env = wrapped(by="family")
    answer(env, 5)
    assert env.estimate(make_task(id="toy/counting/train/9")) > 0.5
    assert env.estimate(make_task(family="reading")) == 0.5


def test_the_reward_uses_the_estimate_as_difficulty():
    env = wrapped(prior_weight=1e-9, decay=1.0)
    answer(env, 5)
    env.reset(options={"task": make_task()})
    env.step(LOOK)
    info = env.step("<answer>5</answer>")[4]
    assert info["reward_terms"]["tool_sequence"] == pytest.approx(-0.27302, abs=1e-4)


def test_a_lost_episode_is_not_counted():
    env = wrapped()
    env.reset(options={"task": make_task()})
    env.unwrapped.sandbox.is_down = True
    assert env.step(LOOK)[3]
    assert env.state_dict() == {"right": {}, "scored": {}}


def test_the_state_survives_json():
    env, other = wrapped(), wrapped()
    answer(env, 5)
    other.load_state_dict(json.loads(json.dumps(env.state_dict())))
    assert other.estimate(make_task()) == env.estimate(make_task())
    answer(other, 6)
    assert other.estimate(make_task()) != env.estimate(make_task())


def test_wrong_arguments_are_rejected():
    with pytest.raises(ValueError, match="'task' or 'family'"):
        wrapped(by="suite")
    with pytest.raises(ValueError, match="decay"):
        wrapped(decay=0.0)
    with pytest.raises(TypeError, match="VisualCodeEnv"):
        RunningAccuracy(gym.make("CartPole-v1"))
