"""The examples run as described in their first lines."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, folder):
    command = [sys.executable, str(EXAMPLES / name)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_the_random_agent_plays_an_episode(tmp_path):
    lines = run("random_agent.py", tmp_path).splitlines()
    assert lines[0].startswith("nano/")
    assert "224, 224" in lines[1].replace("(", "").replace(")", "")
    assert "(112, 112, 3)" in lines[2]
    assert lines[-1].startswith("answered {'accuracy'")


def test_a_custom_family_and_reward_term(tmp_path):
    out = run("own_family.py", tmp_path)
    assert out.startswith("True ")
    assert "'brevity': 0.1" in out
