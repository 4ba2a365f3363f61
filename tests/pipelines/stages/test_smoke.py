"""The whole pipeline as for a new user: one command, a real process; a second run reuses all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor


def run(folder, *arguments):
    environment = {**os.environ, "CODEDANCE_DIR": str(folder / "home"), "COLUMNS": "80"}
    command = [sys.executable, "-c", "from codedance.pipelines.cli import main; main()", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr + done.stdout  # progress is on the one, results on the other


def stage_folder(folder: Path, stage: str) -> Path:
    (found,) = (folder / "home" / "stages").glob(f"{stage}-*")
    return found


def weights_of(folder: Path, stage: str) -> dict[str, Tensor]:
    return load_file(stage_folder(folder, stage) / "final" / "model.safetensors")


def metric(folder: Path, stage: str, name: str) -> list[float]:
    """Return a metric of every step that has it."""
    lines = (stage_folder(folder, stage) / "metrics.jsonl").read_text().splitlines()
    return [found[name] for line in lines if name in (found := json.loads(line))]


@pytest.mark.slow
def test_the_smoke_preset_runs_end_to_end_and_a_second_run_reuses_all(tmp_path: Path):
    first = run(tmp_path, "run", "--preset", "smoke")
    for stage in ("curate", "sft", "grpo", "evaluate"):
        assert f"{stage}: finished" in first
    assert "grpo against sft, sampled" in first
    before, after = (weights_of(tmp_path, stage) for stage in ("sft", "grpo"))
    moved = [name for name in before if not before[name].equal(after[name])]
    assert len(moved) > len(before) / 2
    assert sum(metric(tmp_path, "grpo", "rows")) > 0
    assert max(metric(tmp_path, "grpo", "grad_norm")) > 0

    (report,) = (tmp_path / "home" / "reports").glob("*/report.html")
    assert "<img" in report.read_text(encoding="utf-8")

    second = run(tmp_path, "run", "--preset", "smoke")
    for stage in ("curate", "sft", "grpo", "evaluate"):
        assert f"{stage}: finished" not in second

    again = run(tmp_path, "rescore", "latest")
    assert "0 with another verdict" in again
