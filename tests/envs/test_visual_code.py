import warnings

import gymnasium as gym
import numpy as np
import pytest
from codedance.envs import register_reward_term
from codedance.envs.protocol import system_prompt
from codedance.envs.rewards.registry import unregister_reward_term
from codedance.envs.rewards.terms import TERMS, score_trajectory
from codedance.envs.types import Ending
from codedance.envs.visual_code import EnvState, VisualCodeEnv
from codedance.sandbox import SandboxError
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from .toys import InProcessSandbox, ToySuite, make_task, noise

ID = "codedance.envs:codedance/VisualCode-v0"
LOOK = "```python\nprint(input_image.getpixel((3, 3)))\n```"
FAIL = "```python\n1/0\n```"


@pytest.fixture
def env(sandbox):
    opened = VisualCodeEnv(ToySuite(), sandbox=sandbox)
    yield opened
    opened.close()


def make(**settings):
    return gym.make(ID, **{"suite": ToySuite(), "sandbox": InProcessSandbox()} | settings)


def play(env, *actions, **options):
    env.reset(seed=0, options=options)
    steps = [env.step(action) for action in actions]
    return [step[1] for step in steps], steps[-1]


@pytest.mark.parametrize("observe", ["newest", "transcript"])
@pytest.mark.parametrize("interface", ["code", "box", "text"])
def test_the_checker_finds_nothing_and_emits_no_warning(observe, interface, capsys):
    env = make(observe=observe, interface=interface)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)
        check_env(env.unwrapped)
    env.close()


def test_the_checker_accepts_the_defaults(capsys):
    env = gym.make(ID)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)
    assert env.unwrapped is env
    env.close()


def test_the_arguments_of_the_design_are_accepted():
    env = gym.make(
        ID,
        suite="nano",
        split="train",
        interface="code",
        reward="bat",
        max_turns=6,
        sandbox="local",
    )
    observation, info = env.reset(seed=0)
    assert observation in env.observation_space
    assert info["task_id"].startswith("nano/")
    observation, reward, terminated, truncated, info = env.step(
        "<think>Look.</think><code>\n```python\nprint(input_image.size)\n```\n</code>"
    )
    height, width, _ = env.reset(seed=0)[0]["images"][0].shape
    assert observation["text"] == f"<tool_response>\n({width}, {height})\n</tool_response>"
    assert (reward, terminated, truncated, info["outcome"]) == (0.0, False, False, "ok")
    env.close()


def test_the_first_observation_is_the_question_and_its_image(env):
    observation, info = env.reset(options={"task_id": "toy/counting/train/7"})
    assert observation["text"] == "How many dots are there?"
    assert (observation["images"][0] == np.asarray(noise(seed=7))).all()
    assert info == {
        "task_id": "toy/counting/train/7",
        "family": "counting",
        "difficulty": "medium",
        "turn": 0,
        "outcome": None,
        "ending": None,
        "is_success": False,
        "is_valid": True,
        "reward_terms": dict.fromkeys(TERMS, 0.0),
    }


def test_a_right_answer_has_reward_one_and_terminates(env):
    rewards, (observation, _, terminated, truncated, info) = play(
        env, "<answer>7</answer>", task_id="toy/counting/train/7"
    )
    assert rewards == [1.0]
    assert (terminated, truncated) == (True, False)
    assert (info["ending"], info["is_success"], info["is_valid"]) == ("answered", True, True)
    assert observation == {"text": "", "images": ()}


def test_each_term_is_paid_at_its_step_and_the_terms_sum_to_the_reward(env):
    env.reset(seed=0, options={"task_id": "toy/counting/train/7"})
    seen = []
    for action in (FAIL, LOOK, "<think><answer>7</answer>"):
        _, reward, _, _, info = env.step(action)
        assert reward == sum(info["reward_terms"].values())
        assert list(info["reward_terms"]) == list(TERMS)
        seen.append(info["reward_terms"])
    assert seen[0] == {"accuracy": 0.0, "format": 0.0, "tool_sequence": 0.0, "tool_turn": -0.1}
    assert seen[1] == dict.fromkeys(TERMS, 0.0)
    assert seen[2] == {
        "accuracy": 1.0,
        "format": -0.2,
        "tool_sequence": pytest.approx(0.3 * 1.5 / 2),
        "tool_turn": 0.0,
    }


def test_the_steps_sum_to_the_score_of_the_trajectory(env):
    for name in ("bat", "bat_paper", "tool_bonus", "outcome", "bat_sequence"):
        other = VisualCodeEnv(ToySuite(), sandbox=env.sandbox, reward=name)
        rewards, _ = play(other, FAIL, FAIL, "<answer>7</answer>", task_id="toy/counting/train/7")
        terms = score_trajectory(other.trajectory(), group_accuracy=0.5, reward=name)
        assert sum(rewards) == pytest.approx(sum(terms.values()))


@pytest.mark.parametrize(("pass_rate", "earned"), [(None, 0.45), (0.0, 0.0), (1.0, -0.27302)])
def test_outside_a_group_the_difficulty_is_the_tasks_pass_rate(env, pass_rate, earned):
    task = make_task(pass_rate=pass_rate)
    _, (*_, info) = play(env, LOOK, "<answer>5</answer>", task=task)
    assert info["reward_terms"]["tool_sequence"] == pytest.approx(earned, abs=1e-5)


@pytest.mark.parametrize(
    ("action", "ending"),
    [("hm", "malformed"), ("", "malformed"), ("<answer></answer>", "answered")],
)
def test_every_ending_caused_by_the_policy_terminates(env, action, ending):
    _, (_, reward, terminated, truncated, info) = play(env, action)
    assert (terminated, truncated, info["ending"]) == (True, False, ending)
    assert reward == (0.0 if ending == "answered" else -0.2)


def test_the_turn_limit_terminates_and_code_in_the_last_turn_is_not_run(sandbox):
    env = VisualCodeEnv(ToySuite(), sandbox=sandbox, max_turns=2)
    rewards, (_, _, terminated, truncated, info) = play(env, FAIL, FAIL)
    assert rewards == pytest.approx([-0.1, -0.2])
    assert (terminated, truncated, info["ending"]) == (True, False, "turn_limit")
    assert info["outcome"] is None


def test_a_sandbox_that_stays_unavailable_truncates_with_reward_zero(env):
    env.reset(seed=0)
    env.step(LOOK)
    env.sandbox.is_down = True
    env.sandbox.lose_sessions()
    _, reward, terminated, truncated, info = env.step(LOOK)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert (info["ending"], info["is_valid"]) == ("infrastructure", False)
    assert set(info["reward_terms"].values()) == {0.0}


def test_a_sandbox_that_fails_before_evidence_is_recorded_truncates_with_reward_zero(env):
    env.reset(seed=0)
    env.step(LOOK)
    env.sandbox.is_down = True
    _, reward, terminated, truncated, info = env.step("<answer>5</answer>")
    assert (reward, terminated, truncated, info["is_valid"]) == (0.0, False, True, False)


def test_a_sandbox_that_cannot_be_opened_truncates(monkeypatch):
    def refuse(*_, **__):
        raise SandboxError("no isolation here")

    monkeypatch.setattr("codedance.sandbox.shared.open_sandbox", refuse)
    env = VisualCodeEnv(ToySuite())
    _, (_, reward, _, truncated, info) = play(env, LOOK)
    assert (reward, truncated, info["is_valid"]) == (0.0, True, False)
    env.close()


def test_a_lost_session_is_replayed(env):
    env.reset(seed=0)
    env.step("```python\nx = seeded()\nprint(x)\n```")
    first = env.episode.turns[-1].execution.stdout
    env.sandbox.lose_sessions()
    observation, *_ = env.step("```python\nprint(x)\n```")
    assert observation["text"] == f"<tool_response>\n{first}</tool_response>"


def test_the_newest_observation_is_the_latest_message(env):
    env.reset(seed=0)
    observation, *_ = env.step("```python\ndisplay(input_image.crop((0, 0, 9, 8)))\n```")
    assert observation["text"].startswith("<tool_response>\npicture 1, 9 x 8:")
    assert [image.shape for image in observation["images"]] == [(112, 126, 3)]


def test_the_transcript_contains_all_messages_so_far(sandbox):
    env = VisualCodeEnv(ToySuite(), sandbox=sandbox, observe="transcript")
    env.reset(seed=0)
    observation, *_ = env.step("```python\nprint(1)\ndisplay(input_image)\n```")
    assert observation["text"].startswith(f"[system]\n{system_prompt('code')}\n\n[user]\nHow many")
    assert "\n\n[assistant]\n```python" in observation["text"]
    assert len(observation["images"]) == 2
    final, *_ = env.step("<answer>5</answer>")
    assert final["text"].endswith("[assistant]\n<answer>5</answer>")


def test_the_same_seed_and_actions_produce_the_same_episode(sandbox):
    def record():
        env = VisualCodeEnv(ToySuite(), sandbox=sandbox)
        seen = [env.reset(seed=5)]
        seen += [env.step(text) for text in ("```python\nprint(seeded())\n```", LOOK, "hm")]
        seen.append(env.reset())
        return repr(seen)

    assert record() == record()


def test_an_episode_continues_from_any_turn_any_number_of_times(env):
    env.reset(seed=1)
    env.step("```python\nx = seeded()\n```")
    state = env.clone_state()
    assert isinstance(state, EnvState)

    def finish():
        seen = [env.step("```python\nprint(x)\n```"), env.step("<answer>5</answer>"), env.reset()]
        return repr(seen)

    first = finish()
    for _ in range(2):
        env.restore_state(state)
        assert finish() == first
    other = VisualCodeEnv(ToySuite(), sandbox=env.sandbox)
    other.restore_state(state)
    assert other.step("```python\nprint(x)\n```")[0]["text"] in first.replace("\\n", "\n")


def test_a_state_after_the_ending_stays_ended(env):
    play(env, "<answer>5</answer>")
    state = env.clone_state()
    env.reset()
    env.restore_state(state)
    with pytest.raises(ResetNeeded, match="over"):
        env.step("<answer>5</answer>")


def test_the_error_for_a_step_without_a_reset_says_what_to_do(env):
    with pytest.raises(ResetNeeded, match=r"call reset\(\) first"):
        env.step("")
    play(env, "hm")
    with pytest.raises(ResetNeeded, match=r"call reset\(\)"):
        env.step("hm")


def test_an_action_that_is_not_text_is_rejected(env):
    env.reset(seed=0)
    with pytest.raises(TypeError, match="got int"):
        env.step(5)


def test_an_unknown_task_or_option_is_rejected(env):
    with pytest.raises(ValueError, match="no task 'nano/x'"):
        env.reset(options={"task_id": "nano/x"})
    with pytest.raises(ValueError, match="task_id, task"):
        env.reset(options={"task_ids": []})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"suite": "nanno"}, "did you mean 'nano'"),
        ({"suite": "nano", "split": "dev"}, "train, test"),
        ({"interface": "cod"}, "code, box, text"),
        ({"reward": "bta"}, "did you mean 'bat'"),
        ({"observe": "all"}, "newest, transcript"),
        ({"sandbox": "locl"}, "did you mean 'local'"),
        ({"max_turns": 0}, "at least 1"),
        ({"render_mode": "ascii"}, "ansi"),
    ],
)
def test_a_wrong_argument_is_rejected_immediately_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        VisualCodeEnv(**{"suite": ToySuite()} | settings)


def test_a_custom_term_is_part_of_the_reward(env):
    register_reward_term("calm")(lambda one: -0.5 * len(one.tool_turns))
    try:
        env.reset(seed=0)
        assert env.step(FAIL)[4]["reward_terms"]["calm"] == 0.0
        _, reward, _, _, info = env.step("hm")
        assert info["reward_terms"]["calm"] == -0.5
        assert reward == sum(info["reward_terms"].values())
    finally:
        unregister_reward_term("calm")


def test_the_answer_is_in_no_observation_info_or_variable(sandbox):
    task = make_task(answer="424242")
    env = VisualCodeEnv(ToySuite(), sandbox=sandbox, observe="transcript")
    opening = env.reset(options={"task": task})
    reply = env.step("```python\nprint({k: str(v) for k, v in globals().items()})\n```")
    assert "424242" not in repr((opening, reply))


def test_a_finished_episode_is_a_trajectory(env):
    play(env, LOOK, "<answer>5</answer>")
    assert env.trajectory("me").ending is Ending.ANSWERED
    assert [one["role"] for one in env.trajectory().messages()] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
