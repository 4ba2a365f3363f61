"""The whole path as a newcomer runs it: one command, a real process, a second time for nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(folder, *arguments):
    environment = {**os.environ, "CODEDANCE_DIR": str(folder / "home"), "COLUMNS": "80"}
    command = [sys.executable, "-c", "from codedance.pipelines.cli import main; main()", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr + done.stdout  # progress goes to the one, results to the other


@pytest.mark.slow
def test_the_smoke_preset_runs_end_to_end_and_again_for_nothing(tmp_path: Path):
    first = run(tmp_path, "run", "--preset", "smoke")
    for stage in ("curate", "sft", "grpo", "evaluate"):
        assert f"{stage}: finished" in first
    assert "grpo against sft, sampled" in first
    (report,) = (tmp_path / "home" / "reports").glob("*/report.html")
    assert "<img" in report.read_text(encoding="utf-8")

    second = run(tmp_path, "run", "--preset", "smoke")
    for stage in ("curate", "sft", "grpo", "evaluate"):
        assert f"{stage}: finished" not in second

    again = run(tmp_path, "rescore", "latest")
    assert "0 with another verdict" in again
