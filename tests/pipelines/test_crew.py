"""One command in several processes: the same story in the store, once, and the same figures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from codedance.pipelines.crew import CrewError, crew_of
from codedance.pipelines.desk import open_desk
from codedance.pipelines.home import Home
from codedance.pipelines.metrics_file import read_steps
from codedance.pipelines.stages.runner import STAGES

from .runs import first_run, story, write_tiny

RUN = ["-m", "codedance.pipelines.cli", "run", "--preset", "smoke", "--no-prefect"]
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
LAUNCH += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
"""accelerate starts several processes only where it is told of several GPUs, had or not."""


def train(folder: Path, arguments: list[str]) -> Path:
    write_tiny(folder)
    environment = os.environ | {"CODEDANCE_DIR": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    return folder / "home"


def test_processes_are_not_started_by_one_of_several(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CrewError, match="leave it out"), crew_of(2):
        pass


def test_the_environment_is_as_before_when_a_crew_is_done(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = dict(os.environ)
    with crew_of(1):
        assert dict(os.environ) == before
    assert dict(os.environ) == before


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("alone"), RUN)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[*RUN, "--processes", "2"], [*LAUNCH, *RUN]])
def test_two_processes_tell_the_same_story_once(arguments: list[str], alone: Path, tmp_path: Path):
    both = train(tmp_path, arguments)
    with open_desk(Home(alone), track=False) as one:
        expected = _told(one)
    with open_desk(Home(both), track=False) as other:
        found = _told(other)
    assert found["stories"] == expected["stories"]
    for stage in ("sft", "grpo"):
        mine, theirs = found[stage], expected[stage]
        assert list(mine) == list(theirs)
        for step, figures in theirs.items():
            assert mine[step] == pytest.approx(figures, rel=1e-3, abs=1e-4)


def _told(desk):
    pipeline = first_run(desk)
    runs = {stage: desk.store.lineage.get(pipeline.outputs[stage]) for stage in STAGES}
    stories = {stage: story(desk.store, run.id) for stage, run in runs.items()}
    figures = {s: read_steps(desk.home.stages / runs[s].id) for s in ("sft", "grpo")}
    return {"stories": stories, **figures}
