"""Kill -9 at random moments: the same command resumes and has the same result."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

HERE = Path(__file__).parent


def start(model: Path, folder: Path, script: str = "dying_run.py") -> subprocess.Popen[bytes]:
    paths = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, str(HERE / script), str(model), str(folder)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, error = process.communicate(timeout=200)
    assert process.returncode == 0, error.decode()[-2000:]


def lines(folder: Path) -> list[str]:
    path = folder / "log.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def kill_after(process: subprocess.Popen[bytes], folder: Path, count: int, delay: float) -> bool:
    """Kill after ``count`` more steps and a delay; return False if the run had finished."""
    wanted = len(lines(folder)) + count
    while process.poll() is None and len(lines(folder)) < wanted:
        time.sleep(0.005)
    time.sleep(delay)
    process.kill()
    process.communicate()
    return process.returncode != 0


def by_step(folder: Path) -> dict[tuple[str, int], list[dict[str, float]]]:
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for line in lines(folder):
        values = json.loads(line)
        found.setdefault((values.pop("stage"), values.pop("step")), []).append(values)
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForImageTextToText.from_pretrained(folder).state_dict())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_runs_end_with_the_metrics_and_weights_of_an_uninterrupted_one(
    tiny_folder, tmp_path
):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    straight.mkdir()
    killed.mkdir()
    finish(start(tiny_folder, straight))
    draw = random.Random(0)
    deaths = 0
    for _ in range(2):
        process = start(tiny_folder, killed)
        deaths += kill_after(process, killed, draw.randint(2, 4), draw.uniform(0.0, 0.1))
    finish(start(tiny_folder, killed))
    assert deaths == 2
    expected, found = by_step(straight), by_step(killed)
    assert list(expected) == [("sft", n) for n in range(1, 7)] + [("grpo", n) for n in range(1, 6)]
    assert found.keys() == expected.keys()
    for step, again in found.items():
        assert all(values == expected[step][0] for values in again), step
    for stage in ("sft", "grpo"):
        one, other = (weights(folder / stage / "final") for folder in (straight, killed))
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_asynchronous_runs_learn_from_the_same_tasks(tiny_folder, tmp_path):
    """What was in generation is lost; its tasks are those of the resumed run again."""
    script = "dying_asynchronous_run.py"
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    straight.mkdir()
    killed.mkdir()
    finish(start(tiny_folder, straight, script))
    draw = random.Random(1)
    deaths = 0
    for count in (3, 2, 3):  # steps whose replies have come; the update may be under way
        process = start(tiny_folder, killed, script)
        deaths += kill_after(process, killed, count, draw.uniform(0.0, 0.2))
    finish(start(tiny_folder, killed, script))
    assert deaths == 3
    expected, found = by_step(straight), by_step(killed)
    assert list(expected) == [("grpo", n) for n in range(1, 9)]
    assert found.keys() == expected.keys()
    for step, again in found.items():
        assert all(values == expected[step][0] for values in again), step
    assert sum(len(again) for again in found.values()) > 8  # steps were repeated
