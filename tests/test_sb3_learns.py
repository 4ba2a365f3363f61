"""PPO of Stable-Baselines3 trains on the menu until the shaped reward has risen by LEAST."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "sb3_ppo.py"
LEAST = 0.2
RESULT = r"^(by chance|before|after) +reward ([+-][\d.]+)"


@pytest.mark.slow
def test_the_held_out_reward_rises_by_the_stated_amount(tmp_path):
    options = ["--rise", "0.6", "--episodes", "60"]  # of the newest training episodes
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *options],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith(("CODEDANCE_", "MLFLOW_"))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rewards = dict(re.findall(RESULT, done.stdout, re.MULTILINE))
    before, after = float(rewards["before"]), float(rewards["after"])
    assert after - max(before, float(rewards["by chance"])) >= LEAST, done.stdout
    assert (tmp_path / ".codedance" / "mlflow.db").exists()
