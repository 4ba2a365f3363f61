"""Records in a run's folder what its pages show besides the store: the source for MLflow.

`mlflow.sync.MlflowSync` makes MLflow's runs from these files and the store, any number of times.
Nothing here waits for MLflow, and no file holds an address or a password.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .lines import LineWriter, read_lines

Terms = Mapping[str, float | None]
PAGE_NAME = "page.jsonl"
"""Parts of a run's page, each an object with some fields of `RunPage`."""
FIGURES_NAME = "figures.jsonl"
"""Metrics besides those of training steps: of whole phases, of the clock, of the machine."""
NOTE = "mlflow.note.content"
"""Tag that MLflow shows as the description of a run."""


class Tracker:
    """Writes the page of each run into the run's folder.

    Args:
        stages: Folder with a folder per run.
        place: Experiment and run in MLflow that the user named; recorded with every run.
    """

    def __init__(self, stages: Path, place: Mapping[str, str] | None = None) -> None:
        self._stages = stages
        self._place = dict(place or {})
        self.writer = LineWriter()
        self.touched: list[str] = []
        """Ids of the runs that were written to, in order, for `SyncThread`."""

    def describe(
        self, run_id: str, description: str = "", *, tags: Mapping[str, str] | None = None
    ) -> None:
        """Record the description of a run (Markdown; empty to keep the earlier one) and tags."""
        note = {NOTE: description} if description else {}
        self._append(run_id, PAGE_NAME, {"tags": {**(tags or {}), **note}, "place": self._place})

    def metrics(self, run_id: str, step: int, values: Mapping[str, float | None]) -> None:
        """Record metrics that are no training metrics of a step; None and NaN are left out."""
        clean = {k: float(v) for k, v in values.items() if v is not None and math.isfinite(v)}
        if clean:
            line = {"step": step, "at": time.time_ns() // 10**6, "values": clean}
            self._append(run_id, FIGURES_NAME, line)

    def dataset(
        self, run_id: str, name: str, *, digest: str, profile: Mapping[str, Any], use: str
    ) -> None:
        """Record the data that a run reads: name, digest, a profile, and its use."""
        found = {"name": name, "digest": digest, "profile": dict(profile), "use": use}
        self._append(run_id, PAGE_NAME, {"datasets": {f"{name} {digest}": found}})

    def artifact(self, run_id: str, path: Path, *, folder: str = "") -> None:
        """Record a file, or a folder with all its files, as an artifact of a run."""
        self._append(run_id, PAGE_NAME, {"artifacts": {str(path): folder}})

    def traces(
        self,
        run_id: str,
        trajectories: Sequence[int],
        *,
        name: str,
        terms: Mapping[int, Terms] | None = None,
    ) -> None:
        """Choose stored trajectories of a run, by id, that are shown as traces.

        Args:
            run_id: Stage run.
            trajectories: Ids in the store; siblings of a group together.
            name: Phase or step that they belong to.
            terms: Reward terms of the trajectories that have none in the store.
        """
        if trajectories:
            scored = {str(number): dict(values) for number, values in (terms or {}).items()}
            chosen = {"trajectories": list(trajectories), "terms": scored}
            self._append(run_id, PAGE_NAME, {"groups": {name: chosen}})

    def touch(self, run_id: str) -> None:
        """Have MLflow brought up to date with a run whose row in the store has changed."""
        if run_id not in self.touched:
            self.touched.append(run_id)

    def _append(self, run_id: str, name: str, line: Mapping[str, Any]) -> None:
        self.touch(run_id)
        self.writer.append(self._stages / run_id / name, line)


@dataclass(slots=True)
class RunPage:
    """What a run's folder says for its page, the later record of a thing over the earlier.

    Attributes:
        tags: Tags by name, the description among them.
        datasets: Datasets by name and digest.
        artifacts: Folder in MLflow by path of a file or folder.
        groups: Trajectories to show as traces, and their reward terms, by phase or step.
        place: Experiment and run in MLflow that the user named.
    """

    tags: dict[str, str] = field(default_factory=dict[str, str])
    datasets: dict[str, Any] = field(default_factory=dict[str, Any])
    artifacts: dict[str, str] = field(default_factory=dict[str, str])
    groups: dict[str, Any] = field(default_factory=dict[str, Any])
    place: dict[str, str] = field(default_factory=dict[str, str])


def read_page(folder: Path) -> RunPage:
    """Read the page of a run from its folder."""
    page = RunPage()
    for line in read_lines(folder / PAGE_NAME):
        page.tags |= line.get("tags", {})
        page.datasets |= line.get("datasets", {})
        page.artifacts |= line.get("artifacts", {})
        page.groups |= line.get("groups", {})
        page.place = line.get("place") or page.place
    return page
