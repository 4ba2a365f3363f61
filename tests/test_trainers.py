"""Other trainers on our environment: each example trains until its held-out reward has risen."""

import importlib.util
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
LEAST = 0.2
RESULT = r"reward ([+-][\d.]+) before, ([+-][\d.]+) after, ([+-][\d.]+) \(95 %: ([+-][\d.]+) to"


def run(name, folder, *options):
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *options],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def guesser():
    place = importlib.util.spec_from_file_location("guesser", EXAMPLES / "guesser.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reinforce.py", "ppo_text.py", "trl_grpo.py"])
def test_an_example_raises_the_held_out_reward(name, tmp_path):
    done = run(name, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after, gain, low = map(float, re.search(RESULT, done.stdout).groups())
    assert after - before == pytest.approx(gain, abs=0.002)
    assert gain >= LEAST
    assert low > 0.0


@pytest.mark.slow
def test_an_example_fails_if_nothing_was_learned(tmp_path):
    done = run("reinforce.py", tmp_path, "--steps", "0", "--episodes", "16")
    assert done.returncode == 1, done.stderr
    assert f"NOT risen by at least {LEAST}" in done.stdout


@pytest.mark.parametrize(
    ("after", "code"),
    [
        ([1.0] * 8, 0),
        ([0.25] * 7 + [0.0], 1),  # certain, but smaller than required
        ([8.0] + [0.0] * 7, 1),  # one large success: the interval contains 0
    ],
)
def test_a_rise_must_be_large_enough_and_certain(guesser, after, code):
    least = 0.5
    assert guesser.report("by hand", [0.0] * 8, after, least=least) == code


def test_a_lost_episode_is_excluded_before_and_after(guesser, capsys):
    before = [0.0, 0.0, math.nan, 5.0]
    after = [1.0, 1.0, 9.0, math.nan]
    assert guesser.report("by hand", before, after, least=0.5) == 0
    assert "+0.000 before, +1.000 after" in capsys.readouterr().out
