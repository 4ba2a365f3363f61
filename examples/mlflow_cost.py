"""Cost of logging a training run to MLflow: metrics, traces, artifacts, system metrics.

    python examples/mlflow_cost.py RUN [STEPS [REPETITIONS]]

RUN is a finished pipeline run in CODEDANCE_DIR (or: latest). In a copy of that folder, GRPO starts
again from its cold start for a few steps, in turns with MLflow and without; the difference is the
cost. Processor time includes all threads, also the one that sends.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import yaml
from codedance.pipelines.config.flows_file import find_flows_file
from codedance.pipelines.config.home import Home, find_home, prepare_environment
from codedance.pipelines.runs.requests import RunRequest, find_pipeline, open_pipeline
from codedance.pipelines.runs.runner import run_stage
from codedance.pipelines.runs.session import open_session


def shorten(preset: str, steps: int, folder: Path) -> None:
    """Write a flows.yaml whose preset has ``steps`` steps of GRPO."""
    settings = yaml.safe_load(find_flows_file().read_text())
    settings["presets"][preset]["grpo"]["steps"] = steps
    (folder / "flows.yaml").write_text(yaml.safe_dump(settings))


def train(home: Home, source: str, preset: str, *, track: bool) -> tuple[float, float]:
    """Return the seconds of wall and processor time of a training, until everything is sent."""
    clock, processor = time.perf_counter(), time.process_time()
    with open_session(home, track=track) as session:
        run_request = RunRequest(preset, fresh=True, from_run=source)
        run_stage(session, "grpo", open_pipeline(session, run_request, stage="grpo"))
    return time.perf_counter() - clock, time.process_time() - processor


def measure(source: str, steps: int, repetitions: int, folder: Path) -> None:
    """Print the times of both and their difference."""
    kept = find_home()
    shutil.copytree(
        kept.root, folder / "home", ignore=shutil.ignore_patterns("ml*", "reports", "prefect")
    )
    home = Home(folder / "home")
    with open_session(home, track=False) as session:
        run = find_pipeline(session, source)
    shorten(run.preset, 2, folder)
    os.chdir(folder)
    os.environ["CODEDANCE_DIR"] = str(home.root)
    prepare_environment(home)
    train(home, run.id, run.preset, track=True)  # creates the database, fills the caches
    shorten(run.preset, steps, folder)
    tracked, untracked = [], []
    for _ in range(repetitions):  # in turns, so the machine's load affects both
        tracked.append(train(home, run.id, run.preset, track=True))
        untracked.append(train(home, run.id, run.preset, track=False))
    for place, name in enumerate(("by the clock", "processor")):
        pairs = [(a[place], b[place]) for a, b in zip(tracked, untracked, strict=True)]
        costs = sorted(100 * (a / b - 1) for a, b in pairs)
        print(
            f"{name:<13} {statistics.median(a for a, _ in pairs):6.1f} s with, "
            f"{statistics.median(b for _, b in pairs):6.1f} s without: "
            f"{statistics.median(costs):+.1f} % ({costs[0]:+.1f} to {costs[-1]:+.1f})"
        )
    print(f"{steps} steps, {repetitions} times each; load {os.getloadavg()[0]:.1f}")


def main() -> None:
    """Measure in a temporary folder."""
    source = sys.argv[1] if len(sys.argv) > 1 else "latest"
    steps, repetitions = (
        int(sys.argv[place]) if len(sys.argv) > place else usual
        for place, usual in ((2, 20), (3, 3))
    )
    with tempfile.TemporaryDirectory() as folder:
        measure(source, steps, repetitions, Path(folder))


if __name__ == "__main__":
    main()
