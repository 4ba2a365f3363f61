import math

import gymnasium
import pytest
from codedance.envs import register_reward_term
from codedance.envs.rewards import score_group
from codedance.envs.rewards.registry import own_term_files, unregister_reward_term, with_terms
from codedance.envs.rewards.terms import group_reward
from codedance.policies.training.grpo.config import GRPOConfig

from ..toys import InProcessSandbox, ToySuite, call, trajectory

TERMS = """
from codedance.envs import register_reward_term

def brevity(trajectory):
    return len(trajectory.turns)

@register_reward_term("calls_made", weight=0.5)
def calls(trajectory):
    return len(trajectory.tool_turns)

def broken(trajectory):
    return 1 / 0

def wordy(trajectory):
    return "long"

level = 3
"""
CALL = call("a", evidence=True)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of terms in the current folder; registered terms are removed afterwards."""
    (tmp_path / "my_terms.py").write_text(TERMS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield "my_terms.py"
    for name in ("brevity", "calls_made", "broken", "wordy"):
        try:
            unregister_reward_term(name)
        except KeyError:
            continue


def test_a_function_named_by_its_file_is_added_to_one_preset_only(file):
    preset = with_terms("bat", {f"{file}:brevity": -0.01})
    group = [trajectory(CALL), trajectory(accuracy=0.0)]
    terms = score_group(group, reward=preset)
    assert terms[0]["brevity"] == pytest.approx(-0.02)
    assert group_reward(terms[0]) == pytest.approx(1.0 + 0.45 - 0.02)
    assert group_reward(terms[1]) == pytest.approx(-0.01)
    assert "brevity" not in score_group(group)[0]


def test_a_function_named_by_its_module_is_found_from_the_current_folder(file):
    preset = with_terms("outcome", {"my_terms:brevity": 2.0})
    assert score_group([trajectory()], reward=preset)[0]["brevity"] == 2.0


def test_a_self_registering_function_keeps_its_name_and_counts_only_on_request(file):
    preset = with_terms("outcome", {f"{file}:calls": 0.25})
    assert score_group([trajectory(CALL)], reward=preset)[0]["calls_made"] == 0.25
    assert "calls_made" not in score_group([trajectory(CALL)], reward="outcome")[0]


def test_a_registered_term_is_weighted_by_name():
    register_reward_term("halves")(lambda one: 0.5)
    try:
        preset = with_terms("bat", {"halves": 4.0})
        assert score_group([trajectory()], reward=preset)[0]["halves"] == 2.0
        assert score_group([trajectory()])[0]["halves"] == 0.5
    finally:
        unregister_reward_term("halves")


def test_terms_are_added_to_the_terms_of_a_preset(file):
    preset = with_terms(with_terms("bat", {f"{file}:brevity": 1.0}), {f"{file}:calls": 1.0})
    assert {"brevity", "calls_made"} <= score_group([trajectory()], reward=preset)[0].keys()
    assert with_terms(preset, None) == preset
    assert with_terms(preset, {f"{file}:brevity": 3.0}).own_terms[0][1] == 3.0


def test_an_unscored_trajectory_has_no_custom_term(file):
    preset = with_terms("bat", {f"{file}:brevity": 1.0})
    terms = score_group([trajectory(accuracy=None)], reward=preset)[0]
    assert terms["brevity"] is None
    assert math.isnan(group_reward(terms))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("brevty", "unknown reward term 'brevty'.*give the location of the function"),
        ("my_terms.py:brevty", "has no 'brevty'; did you mean 'brevity'"),
        ("my_terms.py:level", "is a int, no function"),
        ("absent.py:brevity", r"there is no file absent\.py"),
        ("absent_module:brevity", "there is no module 'absent_module'.*terms.py:function"),
        (":brevity", "unknown reward term"),
        ("", "unknown reward term"),
    ],
)
def test_an_unknown_term_is_rejected_with_the_reason(file, reference, message):
    with pytest.raises(ValueError, match=message):
        with_terms("bat", {reference: 1.0})


def test_infinite_weights_and_conflicting_names_are_rejected(file, tmp_path):
    with pytest.raises(ValueError, match=r"weight of reward term .* is nan"):
        with_terms("bat", {f"{file}:brevity": math.nan})
    with pytest.raises(ValueError, match="weight of reward term 'heavy' is inf"):
        register_reward_term("heavy", weight=math.inf)
    (tmp_path / "other.py").write_text("def brevity(t): return 0.0\n", encoding="utf-8")
    with pytest.raises(ValueError, match="are both called 'brevity'"):
        with_terms("bat", {f"{file}:brevity": 1.0, "other.py:brevity": 1.0})
    (tmp_path / "bad.py").write_text("def accuracy(t): return 0.0\n", encoding="utf-8")
    with pytest.raises(ValueError, match="'accuracy' is a built-in"):
        with_terms("bat", {"bad.py:accuracy": 1.0})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", r"'broken' failed on toy/counting/train/0: ZeroDivisionError: division by zero"),
        ("wordy", "'wordy' failed on .*: ValueError: could not convert"),
    ],
)
def test_a_failing_term_is_named_with_the_task(file, name, message):
    preset = with_terms("bat", {f"{file}:{name}": 1.0})
    with pytest.raises(ValueError, match=message):
        score_group([trajectory()], reward=preset)


def test_the_environment_pays_a_custom_term_at_the_end_and_always_has_its_key(file):
    with InProcessSandbox() as sandbox:
        env = gymnasium.make(
            "codedance.envs:codedance/VisualCode-v0",
            suite=ToySuite(),
            sandbox=sandbox,
            reward="outcome",
            reward_terms={f"{file}:brevity": -0.01},
        )
        _, info = env.reset(seed=0, options={"task_id": "toy/counting/train/7"})
        assert info["reward_terms"]["brevity"] == 0.0
        _, reward, *_, info = env.step("<code>\n```python\nprint(1)\n```\n</code>")
        assert (reward, info["reward_terms"]["brevity"]) == (0.0, 0.0)
        _, reward, *_, info = env.step("<answer>7</answer>")
        assert info["reward_terms"]["brevity"] == pytest.approx(-0.02)
        assert reward == pytest.approx(0.98)
        env.close()


def test_the_vector_environment_pays_a_custom_term(file):
    with InProcessSandbox() as sandbox:
        envs = gymnasium.make_vec(
            "codedance.envs:codedance/VisualCode-v0",
            num_envs=2,
            suite=ToySuite(),
            sandbox=sandbox,
            reward="outcome",
            reward_terms={f"{file}:brevity": -0.5},
        )
        envs.reset(seed=0)
        _, rewards, *_ = envs.step(["<answer>none</answer>"] * 2)
        assert rewards.tolist() == [-0.5, -0.5]
        envs.close()


def test_the_trainers_settings_accept_terms_and_reject_unknown_ones(file):
    config = GRPOConfig(reward="outcome", reward_terms={f"{file}:brevity": 2.0})
    assert score_group([trajectory()], reward=config.scoring)[0]["brevity"] == 2.0
    with pytest.raises(ValueError, match="unknown reward term 'brevty'"):
        GRPOConfig(reward_terms={"brevty": 1.0})


def test_the_files_of_terms_are_listed():
    paths = own_term_files(["terms/mine.py:brevity", "package.module:brevity", "halves"])
    assert [path.as_posix() for path in paths] == ["terms/mine.py"]
