"""A run's page in MLflow: its description and its tags."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from ..charts.markdown_table import markdown_table
from ..config.code_version import git_commit
from ..config.registry import find_stage
from ..store.lineage import PIPELINE, StageRun
from ..store.store import Store
from ..tracking.alarm_file import read_alarms
from .machine import describe_machine
from .progress import format_seconds

PURPOSE = "Run every stage of the pipeline. Each stage is a run of its own below this one."
"""Description of a pipeline run."""
PACKAGES = ("torch", "transformers", "mlflow", "numpy")


def machine_tags() -> dict[str, str]:
    """Return tags with the machine and the library versions of this process."""
    machine = describe_machine()
    text = f"{machine.processor}, {machine.cores} cores, {machine.memory_gb:.0f} GiB"
    gpus = _gpus()
    tags = {"codedance.machine": text + (f", {gpus}" if gpus else "")}
    tags["codedance.host"] = platform.node()
    tags["codedance.system"] = machine.system
    for name in PACKAGES:
        try:
            tags[f"codedance.version.{name}"] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return tags


def run_tags(run: StageRun, store: Store) -> dict[str, str]:
    """Return the tags of a run at its start."""
    commit = run.git_commit or git_commit() or ""
    digest = data_digest(store, run)
    return {
        "codedance.preset": run.preset,
        "codedance.seed": str(run.seed),
        "codedance.suite": str(run.parameters.get("suite", "")),
        "codedance.code_version": run.code_version,
        "codedance.git_commit": commit,
        **({"mlflow.source.git.commit": commit.rstrip("+")} if commit else {}),
        **({"codedance.data_digest": digest} if digest else {}),
        **machine_tags(),
        **{f"codedance.input.{name}": str(value) for name, value in run.inputs.items()},
    }


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
    results = find_stage(run.stage).results or _output_lines
    lines = [opening(run), "", f"Finished after {format_seconds(run.seconds)} of work."]
    lines += ["", *results(store, run, folder)]
    alarms = read_alarms(folder)
    if alarms:
        lines += ["", "**Alarms**", ""]
        lines += [f"- step {alarm.step}: {alarm.message}" for alarm in alarms]
    return "\n".join(lines)


def _output_lines(_store: Store, run: StageRun, _folder: Path) -> list[str]:
    return markdown_table(["output", "value"], run.outputs.items())


@cache
def _gpus() -> str:
    """Return count and name of the GPUs that the driver lists, without loading torch."""
    found = Path("/proc/driver/nvidia/gpus")
    names: list[str] = []
    for path in sorted(found.glob("*/information")) if found.is_dir() else []:
        model = next((line for line in path.read_text().splitlines() if "Model" in line), "")
        names.append(model.partition(":")[2].strip())
    return ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))
