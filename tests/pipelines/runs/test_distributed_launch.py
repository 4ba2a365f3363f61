"""One command in several processes: the same episodes in the store, once, and the same metrics."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from codedance.pipelines.config.home import Home
from codedance.pipelines.config.registry import BUILT_IN
from codedance.pipelines.runs.distributed_launch import (
    LaunchError,
    _share_cores,
    launched_processes,
)
from codedance.pipelines.runs.session import open_session
from codedance.pipelines.tracking.metrics_file import read_steps

from ..tiny_runs import first_run, story, write_tiny

RUN = ["-m", "codedance.pipelines.cli", "run", "--preset", "smoke", "--no-prefect"]
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
LAUNCH += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
"""accelerate starts several processes only if several GPUs are configured, existing or not."""


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
    with pytest.raises(LaunchError, match="leave it out"), launched_processes(2):
        pass


FOLLOWER = """
import json, os, sys
from pathlib import Path
recorded = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
path = Path(sys.argv[0]).with_name("recorded-" + os.environ["RANK"])
path.write_text(json.dumps({name: os.environ.get(name) for name in recorded}))
"""


@pytest.fixture
def followers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make the other processes of a launch record their environment and end."""
    script = tmp_path / "follower.py"
    script.write_text(FOLLOWER)
    program = tmp_path / "python"
    program.write_text(
        f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(script))}\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr("codedance.pipelines.runs.distributed_launch.sys.executable", str(program))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    return tmp_path


def test_the_environment_is_restored_after_a_launch(
    followers: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("codedance.pipelines.runs.distributed_launch.dismiss", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    monkeypatch.setenv("MASTER_PORT", "4711")
    before = dict(os.environ)
    with launched_processes(3):
        within = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE", "OMP_NUM_THREADS")}
        port = os.environ["MASTER_PORT"]
    assert within == {"RANK": "0", "WORLD_SIZE": "3", "OMP_NUM_THREADS": "2"}
    assert dict(os.environ) == before
    for rank in ("1", "2"):
        assert json.loads((followers / f"recorded-{rank}").read_text()) == {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": "3",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": "2",
        }


def test_the_environment_is_restored_after_a_failed_launch(
    followers: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("codedance.pipelines.runs.distributed_launch.dismiss", lambda: None)
    before = dict(os.environ)
    with pytest.raises(KeyError), launched_processes(2):
        raise KeyError("a stage failed")
    assert dict(os.environ) == before


def test_one_process_starts_no_others(followers: Path):
    before = dict(os.environ)
    with launched_processes(1):
        assert dict(os.environ) == before
    assert list(followers.glob("recorded-*")) == []


@pytest.mark.parametrize(
    ("arguments", "world", "threads"),
    [
        (["run", "--workers", "6"], "2", "3"),
        (["run", "--workers=4", "--seed", "1"], "1", "4"),
        (["run", "--workers", "1"], "2", "1"),
        (["run"], "2", "5"),
        (["run", "--workers"], "2", "5"),
        (["--workers"], "2", "5"),
        ([], "2", "5"),  # like the processes that --processes starts
    ],
)
def test_processes_started_by_accelerate_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], world: str, threads: str
):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", world)
    _share_cores(arguments)
    assert os.environ["OMP_NUM_THREADS"] == threads


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("alone"), RUN)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[*RUN, "--processes", "2"], [*LAUNCH, *RUN]])
def test_two_processes_store_the_same_episodes_once(
    arguments: list[str], alone: Path, tmp_path: Path
):
    both = train(tmp_path, arguments)
    with open_session(Home(alone), track=False) as one:
        expected = _stored(one)
    with open_session(Home(both), track=False) as other:
        found = _stored(other)
    assert found["stories"] == expected["stories"]
    for stage in ("sft", "grpo"):
        mine, theirs = found[stage], expected[stage]
        assert list(mine) == list(theirs)
        for step, figures in theirs.items():
            assert mine[step] == pytest.approx(figures, rel=1e-3, abs=1e-4)


def _stored(session):
    pipeline = first_run(session)
    runs = {stage: session.store.lineage.get(pipeline.outputs[stage]) for stage in BUILT_IN}
    stories = {stage: story(session.store, run.id) for stage, run in runs.items()}
    figures = {s: read_steps(session.home.stages / runs[s].id) for s in ("sft", "grpo")}
    return {"stories": stories, **figures}
