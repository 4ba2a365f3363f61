"""Kill -9 of the whole command: the same command resumes the same runs with the same metrics."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time

import pytest
from codedance.pipelines.config.home import Home
from codedance.pipelines.tracking.lines import LineWriter
from codedance.pipelines.tracking.metrics_file import FILE_NAME, append_metrics, read_metrics

COMMAND = [
    sys.executable,
    "-c",
    "from codedance.pipelines.cli import main; main()",
    *("run", "--preset", "smoke"),
]


def stage_folder(home, stage):
    found = sorted(home.stages.glob(f"{stage}-*")) if home.stages.is_dir() else []
    assert len(found) <= 1, "a killed stage was restarted instead of resumed"
    return found[0] if found else None


def steps_done(home, stage):
    folder = stage_folder(home, stage)
    path = folder / FILE_NAME if folder else None
    return len(path.read_text().splitlines()) if path and path.exists() else 0


def kill_in(home, stage, count, delay, *, way):
    process = subprocess.Popen(
        [*COMMAND, *way], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ
    )
    while process.poll() is None and steps_done(home, stage) < count:
        time.sleep(0.01)
    time.sleep(delay)
    process.kill()
    process.communicate()
    assert process.returncode == -9


def run_uninterrupted(folder, way):
    """Run the same command to its end, as a separate process with as many threads."""
    folder.mkdir()
    environment = os.environ | {"CODEDANCE_DIR": str(folder)}
    subprocess.run([*COMMAND, *way], check=True, timeout=400, capture_output=True, env=environment)
    return Home(folder)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_command_resumes_to_the_metrics_of_an_uninterrupted_one(home, tiny, tmp_path, way):
    unharmed_home = run_uninterrupted(tmp_path / "unharmed", way)
    draw = random.Random(1)
    kill_in(home, "sft", 1, draw.uniform(0.0, 0.2), way=way)
    kill_in(home, "sft", 3, draw.uniform(0.0, 0.2), way=way)
    kill_in(home, "grpo", 2, draw.uniform(0.0, 0.2), way=way)
    subprocess.run([*COMMAND, *way], check=True, timeout=400, capture_output=True)
    for stage in ("sft", "grpo"):
        unharmed = read_metrics(stage_folder(unharmed_home, stage))
        assert read_metrics(stage_folder(home, stage)) == unharmed
    with sqlite3.connect(home.root / "mlflow.db") as database:
        names = [name for (name,) in database.execute("SELECT name FROM runs")]
    assert len(names) == len(set(names)) == 5  # the pipeline and its four stages, once each


def test_a_line_truncated_by_a_kill_loses_only_itself(tmp_path):
    append_metrics(LineWriter(), tmp_path, 1, {"loss": 2.0})
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write('{"step": 2, "lo')
    append_metrics(LineWriter(), tmp_path, 2, {"loss": 1.0})
    assert read_metrics(tmp_path) == {"loss": [(1, 2.0), (2, 1.0)]}
