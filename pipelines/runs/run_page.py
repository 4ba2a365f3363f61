"""A run's page in MLflow: its description and its tags."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from ..charts.markdown_table import markdown_table
from ..config.registry import find_stage
from ..store.lineage import PIPELINE, StageRun
from ..store.store import Store
from ..tracking.alarm_file import read_alarms
from .machine import describe_machine
from .progress import format_seconds

PURPOSE = "Run every stage of the pipeline. Each stage is a run of its own below this one."
PACKAGES = ("torch", "transformers", "mlflow", "numpy")


def run_tags(run: StageRun, store: Store) -> dict[str, str]:
    """Return the tags of a run, among them the machine and the library versions of this process."""
    commit, machine = run.git_commit or "", describe_machine()
    memory = f"{machine.memory_gb:.0f} GiB"
    tags = {
        "codedance.preset": run.preset,
        "codedance.seed": str(run.seed),
        "codedance.suite": str(run.parameters.get("suite", "")),
        "codedance.code_version": run.code_version,
        "codedance.git_commit": commit,
        "mlflow.source.git.commit": commit.rstrip("+"),
        "codedance.data_digest": data_digest(store, run),
        "codedance.machine": ", ".join(
            [machine.processor, f"{machine.cores} cores", memory, *_gpus()]
        ),
        "codedance.host": platform.node(),
        "codedance.system": machine.system,
        **{f"codedance.input.{name}": str(value) for name, value in run.inputs.items()},
    }
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            tags[f"codedance.version.{name}"] = metadata.version(name)
    return {name: value for name, value in tags.items() if value}


def data_digest(store: Store, run: StageRun) -> str:
    """Return the digest of the curated tasks that a run trains on; empty without any."""
    curation = run.id if run.stage == "curate" else {**run.outputs, **run.inputs}.get("curate")
    if curation is None:
        return ""
    rows = store.curation(str(curation))
    return digest_of(f"{row.task_key} {row.demonstration}" for row in rows if row.is_kept)


def digest_of(parts: Iterable[str]) -> str:
    """Return a digest of the parts in any order, 16 hex digits; empty without parts.

    >>> digest_of(["b", "a"]) == digest_of(["a", "b"])
    True
    """
    ordered = sorted(parts)
    return hashlib.sha256(json.dumps(ordered).encode()).hexdigest()[:16] if ordered else ""


def opening(run: StageRun) -> str:
    """Return the description of a run at its start, in Markdown."""
    lines = [
        PURPOSE if run.stage == PIPELINE else find_stage(run.stage).summary,
        "",
        f"Preset **{run.preset}**, seed {run.seed}, suite {run.parameters.get('suite', '')}, "
        f"code {run.code_version}, begun {run.started_at:%Y-%m-%d %H:%M} UTC.",
    ]
    if run.inputs:
        made = ", ".join(f"{name} `{value}`" for name, value in run.inputs.items())
        lines += ["", f"Made from: {made}."]
    return "\n".join(lines).strip()


def closing(store: Store, run: StageRun, folder: Path) -> str:
    """Return the description of a finished stage run: its parameters and results, in Markdown."""
    lines = [opening(run), "", f"Finished after {format_seconds(run.seconds)} of work.", ""]
    if results := find_stage(run.stage).results:
        lines += results(store, run, folder)
    else:
        lines += markdown_table(["output", "value"], run.outputs.items())
    if alarms := read_alarms(folder):
        lines += ["", "**Alarms**", ""]
        lines += [f"- step {alarm.step}: {alarm.message}" for alarm in alarms]
    return "\n".join(lines)


@cache
def _gpus() -> list[str]:
    """Return count and name of the GPUs that the driver lists, without loading torch."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = [line for path in files for line in path.read_text().splitlines()]
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
    return [f"{names.count(name)} × {name}" for name in dict.fromkeys(names)]
