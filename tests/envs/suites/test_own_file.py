"""A file of families is a suite by its path."""

import gymnasium as gym
import pytest
from codedance.envs import load_suite
from codedance.envs.suites import SuiteError
from codedance.envs.suites import generated as families_module
from codedance.envs.suites import python_file as own_file

FILE = '''
from codedance.envs import Item, register_family
from PIL import Image


@register_family("{suite}", "level")
def level(rng, difficulty):
    """A grey level."""
    value = int(rng.integers({start}, 256))
    return Item("Which level?", Image.new("RGB", (8, 8), (value, value, value)), str(value))
'''


@pytest.fixture(autouse=True)
def own_families(monkeypatch):
    monkeypatch.setattr(families_module, "_FAMILIES", {})
    monkeypatch.setattr(own_file, "_LOADED", {})


def write(folder, text=FILE, *, name="levels.py", suite="levels", start=0):
    path = folder / name
    path.write_text(text.format(suite=suite, start=start))
    return str(path)


def test_a_file_of_families_is_a_suite(tmp_path):
    suite = load_suite(write(tmp_path), split="test")
    assert (suite.name, suite.families, suite.split) == ("levels", ("level",), "test")
    assert suite[0].id == "levels/level/test/easy/0"
    assert suite[0].answer == load_suite("levels", split="test")[0].answer


def test_the_environment_takes_the_file(tmp_path):
    env = gym.make("codedance.envs:codedance/VisualCode-v0", suite=write(tmp_path))
    observation, info = env.reset(seed=3)
    assert "Which level?" in observation["text"]
    assert info["task_id"].startswith("levels/level/train/")
    env.close()


def test_a_changed_file_is_reloaded(tmp_path):
    load_suite(write(tmp_path))
    suite = load_suite(write(tmp_path, start=255))
    assert {suite[index].answer for index in range(6)} == {"255"}


def test_families_registered_for_nano_are_added_to_it(tmp_path):
    suite = load_suite(write(tmp_path, suite="nano"))
    assert suite.name == "nano"
    assert "level" in suite.families
    assert len(suite.families) == 8


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", "found: none"),
        ("def broken(:", "SyntaxError"),
        ("x = 1\n\nraise KeyError('no')", "line 3: KeyError: 'no'"),
        (FILE.replace("{suite}", "one") + FILE.replace("{suite}", "two"), "one and two"),
    ],
)
def test_a_file_that_is_not_a_suite_is_named_with_the_reason(tmp_path, text, words):
    path = tmp_path / "mine.py"
    path.write_text(text.replace("{start}", "0"))
    with pytest.raises(SuiteError, match=r"mine\.py") as raised:
        load_suite(str(path))
    assert words in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SuiteError, match=r"none\.py: cannot be read"):
        load_suite(str(tmp_path / "none.py"))
